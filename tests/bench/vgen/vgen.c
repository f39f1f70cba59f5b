/* vgen: the two guests of a virtual switch, played by one thread on DPDK's virtio-user driver.
 *
 *   EAL port 0 = guest A, EAL port 1 = guest B. One polling loop sends and receives for both.
 *
 * Every frame is a valid Ethernet/IPv4/UDP datagram from the sender's own MAC and IPv4 address to the receiver's, so a
 * switch with anti-spoofing on lets it pass. Each direction keeps at most --window frames in flight: a switch that loses
 * nothing is asked for nothing more than it can carry, and what counts is what arrives.
 *
 * Frame (bytes 0..63 are written for each frame, the rest is whatever the buffer held):
 *    0 destination MAC | 6 source MAC | 12 0x0800 | 14 IPv4 header | 34 UDP header | 42 magic (4) | 46 sequence (8) |
 *    54 A's address, A's port, B's port (8) once more | pad
 *
 * A flow is one address and UDP port of A with one UDP port of B. Flow i of --flows N has, with d addresses of A
 * (--addresses) and p = 62500 ports: address i % d, A's port (i / d) % p, B's port i / (d p). No two flows are alike below
 * d p 60000. Modes:
 *    bidir    A sends flow i to B, B the mirrored 5-tuple to A, i = 0 .. N-1 in turn; the first frame is A's
 *    oneway   only A to B
 *    newflow  only A to B, and never a flow twice; a window ends early once --budget frames were sent in all
 *    uplink   only A's port is there, and B somewhere behind the switch: A sends as fast as its ring takes frames, and
 *             somebody else counts what arrives
 * The warm-up lasts at least until every flow has arrived once in each direction.
 *
 * Standard output is one JSON object per line:
 *   {"event":"ready"}   links up, addresses announced
 *   {"event":"warm"}    warm-up over, the first window begins
 *   {"event":"sample",...}  one per window
 *   {"event":"total",...}   counts over everything sent, after the frames in flight were collected
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_arp.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <rte_udp.h>

enum { BURST = 64, HEADER = 64, MAGIC = 0x70616c69, LINK_WAIT_MS = 20000 };
/* UDP ports: A's from the first of PORTS, B's from the first of SERVICES. */
enum { FIRST_PORT = 1024, PORTS = 62500, FIRST_SERVICE = 5202, SERVICES = 60000, MOST_ADDRESSES = 64 };
/* A first round through all flows that takes longer than this is given up. */
#define FIRST_ROUND_S 90
/* After this long without an arrival the frames in flight are given up, and their window is used again. */
#define SILENCE_US 200

struct frame {
	struct rte_ether_hdr eth;
	struct rte_ipv4_hdr ip;
	struct rte_udp_hdr udp;
	uint32_t magic;
	uint64_t seq;
	struct flow {
		uint32_t address; /* of A, network order */
		rte_be16_t port, service; /* of A and of B */
	} __attribute__((packed)) flow;
	uint8_t pad[2];
} __attribute__((packed, aligned(2)));
_Static_assert(sizeof(struct frame) == HEADER, "one cache line of frame is written");

struct guest {
	struct rte_ether_addr mac;
	uint32_t ip; /* network order */
};

/* One direction of traffic: from guest `from` to guest `to`. */
struct direction {
	uint16_t from, to;
	bool active;
	struct frame template;
	uint16_t sum[MOST_ADDRESSES]; /* the IPv4 header's checksum, by address of A */
	uint64_t in_flight, last_arrival, seq_out, seq_in;
	/* The flow of the next frame: its number, and what follows from it. */
	uint64_t flow;
	uint32_t address, port, service;
	struct rte_mbuf *unsent[BURST];
	uint16_t unsent_at, unsent_end;
};

struct counts {
	uint64_t tx, rx, rx_bytes, bad, reordered, chatter;
	uint64_t tries, held; /* turns to send, and those in which window or ring was full */
};

static struct guest guests[2];
static struct direction directions[2];
static struct counts counted[2]; /* by direction */
static struct rte_mempool *pool;
static uint32_t frame_size = 64, addresses = 1, window = 256;
static uint16_t ports = 2;
/* Flows that are used in turn, and frames that may be sent in all. */
static uint64_t flows = 1, budget = UINT64_MAX;
static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void build_template(struct direction *d)
{
	struct frame *f = &d->template;
	const struct guest *a = &guests[d->from], *b = &guests[d->to];

	memset(f, 0, sizeof(*f));
	f->eth.dst_addr = b->mac;
	f->eth.src_addr = a->mac;
	f->eth.ether_type = RTE_BE16(RTE_ETHER_TYPE_IPV4);
	f->ip.version_ihl = 0x45;
	f->ip.total_length = rte_cpu_to_be_16(frame_size - sizeof(f->eth));
	f->ip.time_to_live = 64;
	f->ip.next_proto_id = IPPROTO_UDP;
	f->ip.src_addr = a->ip;
	f->ip.dst_addr = b->ip;
	for (uint32_t i = 0; i < addresses; i++) {
		struct rte_ipv4_hdr ip = f->ip;
		uint32_t address = rte_cpu_to_be_32(rte_be_to_cpu_32(guests[0].ip) + i);

		if (d->from == 0)
			ip.src_addr = address;
		else
			ip.dst_addr = address;
		d->sum[i] = rte_ipv4_cksum(&ip);
	}
	f->udp.dgram_len = rte_cpu_to_be_16(frame_size - sizeof(f->eth) - sizeof(f->ip));
	f->magic = RTE_BE32(MAGIC);
}

/* Both directions use the same flow, as a question and its answer do. */
static inline void fill(struct direction *d, struct rte_mbuf *m)
{
	struct frame *f = rte_pktmbuf_mtod(m, struct frame *);
	struct flow flow = {
		.address = rte_cpu_to_be_32(rte_be_to_cpu_32(guests[0].ip) + d->address),
		.port = rte_cpu_to_be_16(FIRST_PORT + d->port),
		.service = rte_cpu_to_be_16(FIRST_SERVICE + d->service),
	};

	memcpy(f, &d->template, sizeof(*f));
	f->ip.hdr_checksum = d->sum[d->address];
	if (d->from == 0) {
		f->ip.src_addr = flow.address;
		f->udp.src_port = flow.port;
		f->udp.dst_port = flow.service;
	} else {
		f->ip.dst_addr = flow.address;
		f->udp.src_port = flow.service;
		f->udp.dst_port = flow.port;
	}
	f->flow = flow;
	f->seq = d->seq_out++;
	if (++d->flow == flows) {
		d->flow = d->address = d->port = d->service = 0;
	} else if (++d->address == addresses) {
		d->address = 0;
		if (++d->port == PORTS) {
			d->port = 0;
			d->service++;
		}
	}
	m->data_len = frame_size;
	m->pkt_len = frame_size;
}

/* Is this the frame that the other guest sent, whole and for us? */
static inline bool as_sent(const struct direction *d, const struct rte_mbuf *m, const struct frame *f)
{
	const struct frame *t = &d->template;
	bool tuple = d->from == 0 ? f->ip.src_addr == f->flow.address && f->ip.dst_addr == t->ip.dst_addr &&
					    f->udp.src_port == f->flow.port && f->udp.dst_port == f->flow.service
				  : f->ip.dst_addr == f->flow.address && f->ip.src_addr == t->ip.src_addr &&
					    f->udp.dst_port == f->flow.port && f->udp.src_port == f->flow.service;

	return m->pkt_len == frame_size && rte_is_same_ether_addr(&f->eth.dst_addr, &t->eth.dst_addr) &&
	       rte_is_same_ether_addr(&f->eth.src_addr, &t->eth.src_addr) && tuple &&
	       f->udp.dgram_len == t->udp.dgram_len;
}

static inline void receive(struct direction *d)
{
	struct counts *c = &counted[d - directions];
	struct rte_mbuf *burst[BURST];
	uint16_t n = rte_eth_rx_burst(d->to, 0, burst, BURST);
	uint16_t ours = 0;

	if (n == 0)
		return;
	/* All lines come from the other CPU: let them come at once. */
	for (uint16_t i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(burst[i], const void *));
	for (uint16_t i = 0; i < n; i++) {
		const struct rte_mbuf *m = burst[i];
		const struct frame *f = rte_pktmbuf_mtod(m, const struct frame *);

		if (likely(m->data_len >= HEADER && f->magic == RTE_BE32(MAGIC))) {
			ours++;
			c->rx_bytes += m->pkt_len;
			if (unlikely(!as_sent(d, m, f)))
				c->bad++;
			/* The next frame of the same flow is `flows` frames later. A switch may change the order of flows
			 * within a burst, but not by a whole round of all flows. */
			if (unlikely(d->seq_in >= flows && f->seq <= d->seq_in - flows))
				c->reordered++;
			if (likely(f->seq >= d->seq_in))
				d->seq_in = f->seq + 1;
		} else if (f->eth.ether_type == RTE_BE16(RTE_ETHER_TYPE_ARP) || f->eth.ether_type == RTE_BE16(RTE_ETHER_TYPE_IPV6)) {
			c->chatter++; /* address resolution of the switch or of the other guest */
		} else {
			c->bad++;
		}
	}
	c->rx += ours;
	d->last_arrival = rte_rdtsc();
	d->in_flight = d->in_flight > ours ? d->in_flight - ours : 0;
	rte_pktmbuf_free_bulk(burst, n);
}

static inline void transmit(struct direction *d, uint64_t silence)
{
	struct counts *c = &counted[d - directions];
	uint16_t sent;

	/* B answers: the first frame of each flow is A's, and the switch has passed it on. */
	if (d->from == 1 && d->seq_out < flows && d->seq_out + BURST > counted[0].rx)
		return;
	c->tries++;
	if (ports == 2 && d->in_flight + BURST > window) {
		uint64_t now = rte_rdtsc();
		c->held++;
		if (now - d->last_arrival > silence) {
			d->in_flight = 0;
			d->last_arrival = now;
		}
		return;
	}
	if (d->unsent_at == d->unsent_end) {
		if (d->seq_out + BURST > budget)
			return;
		if (rte_pktmbuf_alloc_bulk(pool, d->unsent, BURST))
			return;
		for (int i = 0; i < BURST; i++)
			__builtin_prefetch(rte_pktmbuf_mtod(d->unsent[i], const void *), 1);
		for (int i = 0; i < BURST; i++)
			fill(d, d->unsent[i]);
		d->unsent_at = 0;
		d->unsent_end = BURST;
	}
	sent = rte_eth_tx_burst(d->from, 0, d->unsent + d->unsent_at, d->unsent_end - d->unsent_at);
	d->unsent_at += sent;
	d->in_flight += sent;
	c->tx += sent;
	c->held += d->unsent_at < d->unsent_end;
}

static bool first_round_over(void)
{
	for (int i = 0; i < 2; i++)
		if (directions[i].active && counted[i].rx < flows)
			return false;
	return true;
}

/* All that may be sent has been, and has arrived or been given up. */
static bool budget_spent(uint64_t silence)
{
	for (int i = 0; i < 2; i++) {
		const struct direction *d = &directions[i];

		if (!d->active)
			continue;
		if (d->seq_out + BURST <= budget || d->unsent_at < d->unsent_end)
			return false;
		if (counted[i].rx < counted[i].tx && rte_rdtsc() - d->last_arrival < silence)
			return false;
	}
	return true;
}

static void run(double seconds, bool sending)
{
	uint64_t hz = rte_get_tsc_hz(), end = rte_rdtsc() + (uint64_t)(seconds * hz), silence = hz / 1000000 * SILENCE_US;

	do {
		for (int i = 2 - ports; i < 2; i++)
			receive(&directions[i]);
		for (int i = 0; sending && i < 2; i++)
			if (directions[i].active)
				transmit(&directions[i], silence);
	} while (rte_rdtsc() < end && !interrupted && !(sending && budget < UINT64_MAX && budget_spent(silence)));
}

/* A gratuitous ARP: tells a learning switch where the guest is, and claims nothing that is not its own. */
static void announce(uint16_t port)
{
	const struct guest *g = &guests[port];
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	struct rte_ether_hdr *eth;
	struct rte_arp_hdr *arp;

	if (m == NULL)
		rte_exit(1, "no buffer for the announcement\n");
	m->data_len = m->pkt_len = 60;
	eth = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
	memset(eth, 0, 60);
	memset(&eth->dst_addr, 0xff, sizeof(eth->dst_addr));
	eth->src_addr = g->mac;
	eth->ether_type = RTE_BE16(RTE_ETHER_TYPE_ARP);
	arp = (struct rte_arp_hdr *)(eth + 1);
	arp->arp_hardware = RTE_BE16(RTE_ARP_HRD_ETHER);
	arp->arp_protocol = RTE_BE16(RTE_ETHER_TYPE_IPV4);
	arp->arp_hlen = sizeof(g->mac);
	arp->arp_plen = sizeof(g->ip);
	arp->arp_opcode = RTE_BE16(RTE_ARP_OP_REQUEST);
	arp->arp_data.arp_sha = g->mac;
	arp->arp_data.arp_sip = g->ip;
	arp->arp_data.arp_tip = g->ip;
	if (rte_eth_tx_burst(port, 0, &m, 1) == 0)
		rte_pktmbuf_free(m);
}

static void start_port(uint16_t port, uint16_t ring)
{
	struct rte_eth_conf conf = {0};

	if (rte_eth_dev_configure(port, 1, 1, &conf) || rte_eth_rx_queue_setup(port, 0, ring, SOCKET_ID_ANY, NULL, pool) ||
	    rte_eth_tx_queue_setup(port, 0, ring, SOCKET_ID_ANY, NULL) || rte_eth_dev_start(port))
		rte_exit(1, "port %u does not start\n", port);
	rte_eth_promiscuous_enable(port);
}

static void wait_for_links(void)
{
	for (int ms = 0; ms < LINK_WAIT_MS && !interrupted; ms += 10) {
		uint16_t up = 0;
		for (uint16_t p = 0; p < ports; p++) {
			struct rte_eth_link link;
			up += !rte_eth_link_get_nowait(p, &link) && link.link_status;
		}
		if (up == ports)
			return;
		usleep(10000);
	}
	rte_exit(1, "the links are not up after %d ms\n", LINK_WAIT_MS);
}

static struct rte_ether_addr parse_mac(const char *text)
{
	struct rte_ether_addr mac;
	if (rte_ether_unformat_addr(text, &mac))
		rte_exit(1, "%s is not a MAC address\n", text);
	return mac;
}

static uint32_t parse_ip(const char *text)
{
	unsigned a, b, c, d;
	if (sscanf(text, "%u.%u.%u.%u", &a, &b, &c, &d) != 4 || (a | b | c | d) > 255)
		rte_exit(1, "%s is not an IPv4 address\n", text);
	return rte_cpu_to_be_32(RTE_IPV4(a, b, c, d));
}

static void print_sample(const struct counts *before, double seconds)
{
	struct counts d[2];

	for (int i = 0; i < 2; i++)
		d[i] = (struct counts){.tx = counted[i].tx - before[i].tx,
				       .rx = counted[i].rx - before[i].rx,
				       .rx_bytes = counted[i].rx_bytes - before[i].rx_bytes,
				       .tries = counted[i].tries - before[i].tries,
				       .held = counted[i].held - before[i].held};
	printf("{\"event\":\"sample\",\"seconds\":%.6f,\"mpps\":%.4f,\"gbps\":%.4f,\"mpps_a_to_b\":%.4f,\"mpps_b_to_a\":%.4f,"
	       "\"tx_mpps\":%.4f,\"held\":%.4f}\n",
	       seconds, (d[0].rx + d[1].rx) / seconds / 1e6, (d[0].rx_bytes + d[1].rx_bytes) * 8 / seconds / 1e9,
	       d[0].rx / seconds / 1e6, d[1].rx / seconds / 1e6, (d[0].tx + d[1].tx) / seconds / 1e6,
	       (double)(d[0].held + d[1].held) / RTE_MAX(d[0].tries + d[1].tries, 1u));
	fflush(stdout);
}

static void event(const char *name)
{
	printf("{\"event\":\"%s\"}\n", name);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"size", 1, NULL, 's'},	  {"mode", 1, NULL, 'm'},    {"seconds", 1, NULL, 't'}, {"warm", 1, NULL, 'w'},
		{"samples", 1, NULL, 'n'}, {"window", 1, NULL, 'i'},  {"flows", 1, NULL, 'f'},	 {"ring", 1, NULL, 'r'},
		{"addresses", 1, NULL, 'd'}, {"budget", 1, NULL, 'g'},
		{"mac-a", 1, NULL, 'a'},   {"mac-b", 1, NULL, 'b'},   {"ip-a", 1, NULL, 'A'},	 {"ip-b", 1, NULL, 'B'},
		{NULL, 0, NULL, 0},
	};
	double seconds = 3, warm = 1;
	unsigned samples = 1;
	uint16_t ring = 256;
	bool both = true, new_flows = false;
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		return 1;
	argc -= used;
	argv += used;
	directions[0] = (struct direction){.from = 0, .to = 1};
	directions[1] = (struct direction){.from = 1, .to = 0};
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 's': frame_size = strtoul(optarg, NULL, 10); break;
		case 'm':
			if (strcmp(optarg, "bidir") && strcmp(optarg, "oneway") && strcmp(optarg, "newflow") && strcmp(optarg, "uplink"))
				rte_exit(1, "--mode %s: bidir, oneway, newflow or uplink\n", optarg);
			both = strcmp(optarg, "bidir") == 0;
			new_flows = strcmp(optarg, "newflow") == 0;
			ports = strcmp(optarg, "uplink") == 0 ? 1 : 2;
			break;
		case 't': seconds = strtod(optarg, NULL); break;
		case 'w': warm = strtod(optarg, NULL); break;
		case 'n': samples = strtoul(optarg, NULL, 10); break;
		case 'i': window = strtoul(optarg, NULL, 10); break;
		case 'f': flows = strtoull(optarg, NULL, 10); break;
		case 'd': addresses = strtoul(optarg, NULL, 10); break;
		case 'g': budget = strtoull(optarg, NULL, 10); break;
		case 'r': ring = strtoul(optarg, NULL, 10); break;
		case 'a': guests[0].mac = parse_mac(optarg); break;
		case 'b': guests[1].mac = parse_mac(optarg); break;
		case 'A': guests[0].ip = parse_ip(optarg); break;
		case 'B': guests[1].ip = parse_ip(optarg); break;
		default: rte_exit(1, "see main() for the options\n");
		}
	}
	if (frame_size < HEADER || frame_size > 2000)
		rte_exit(1, "--size %u: %d to 2000 bytes\n", frame_size, HEADER);
	if (window < BURST || budget < BURST)
		rte_exit(1, "--window and --budget: at least %d\n", BURST);
	if (addresses < 1 || addresses > MOST_ADDRESSES)
		rte_exit(1, "--addresses %u: 1 to %d\n", addresses, MOST_ADDRESSES);
	/* Distinct 5-tuples; the ports do not wrap below it. */
	uint64_t most = (uint64_t)addresses * PORTS * SERVICES;
	if (new_flows)
		flows = most;
	if (flows < 1 || flows > most)
		rte_exit(1, "--flows %" PRIu64 ": 1 to %" PRIu64 "\n", flows, most);
	if (rte_eth_dev_count_avail() != ports)
		rte_exit(1, "%u ports, want %u\n", rte_eth_dev_count_avail(), ports);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);

	pool = rte_pktmbuf_pool_create("frames", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, rte_socket_id());
	if (pool == NULL)
		rte_exit(1, "no memory for the frames\n");
	for (uint16_t p = 0; p < ports; p++)
		start_port(p, ring);
	wait_for_links();
	/* Some switches raise the link before they poll the port. */
	usleep(300000);
	for (int i = 0; i < 3; i++) {
		for (uint16_t p = 0; p < ports; p++)
			announce(p);
		run(0.02, false);
	}
	memset(counted, 0, sizeof(counted));
	for (int i = 0; i < 2; i++) {
		directions[i].active = both || i == 0;
		directions[i].last_arrival = rte_rdtsc();
		build_template(&directions[i]);
	}
	event("ready");
	run(warm, true);
	if (!new_flows && ports == 2) {
		uint64_t limit = rte_rdtsc() + FIRST_ROUND_S * rte_get_tsc_hz();

		while (!first_round_over() && !interrupted) {
			if (rte_rdtsc() > limit)
				rte_exit(1, "%" PRIu64 " flows have not all arrived after %d s\n", flows, FIRST_ROUND_S);
			run(0.05, true);
		}
	}
	event("warm");
	for (unsigned s = 0; s < samples && !interrupted; s++) {
		struct counts before[2] = {counted[0], counted[1]};
		uint64_t start = rte_rdtsc();
		run(seconds, true);
		print_sample(before, (double)(rte_rdtsc() - start) / rte_get_tsc_hz());
	}
	run(0.1, false);
	printf("{\"event\":\"total\",\"tx\":%" PRIu64 ",\"rx\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"chatter\":%" PRIu64 "}\n",
	       counted[0].tx + counted[1].tx, counted[0].rx + counted[1].rx, counted[0].bad + counted[1].bad,
	       counted[0].reordered + counted[1].reordered, counted[0].chatter + counted[1].chatter);
	fflush(stdout);
	for (uint16_t p = 0; p < ports; p++)
		rte_eth_dev_stop(p);
	rte_eal_cleanup();
	return 0;
}
