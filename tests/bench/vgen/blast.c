/* blast: small UDP datagrams between two network namespaces, as many as the sockets carry.
 *
 *   blast receive PORT SECONDS              counts what arrives, until SECONDS after its start
 *   blast send ADDRESS PORT BYTES SECONDS   sends datagrams of BYTES payload
 *
 * Both use one socket and 64 datagrams a system call, and end with one JSON object on standard output. The receiver says
 * {"event":"ready"} once it is bound. Its rate is over the time from the first to the last arrival.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 64, LARGEST = 2048, BUFFER = 8 << 20 };

static char buffers[BATCH][LARGEST];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void prepare(size_t bytes)
{
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){.iov_base = buffers[i], .iov_len = bytes};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int receive(int s, struct sockaddr_in address, double seconds)
{
	struct timeval patience = {.tv_usec = 100000};
	int size = BUFFER;
	unsigned long count = 0;
	double end = now() + seconds, first = 0, last = 0;

	address.sin_addr.s_addr = INADDR_ANY;
	setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (bind(s, (struct sockaddr *)&address, sizeof(address)))
		return fail("bind");
	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	prepare(LARGEST);
	while (now() < end) {
		int n = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);
		if (n <= 0)
			continue;
		last = now();
		if (first == 0)
			first = last;
		count += n;
	}
	printf("{\"count\":%lu,\"seconds\":%.6f}\n", count, last - first);
	return 0;
}

static int transmit(int s, struct sockaddr_in address, size_t bytes, double seconds)
{
	int size = BUFFER / 2;
	unsigned long count = 0;
	double start, end;

	setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	if (connect(s, (struct sockaddr *)&address, sizeof(address)))
		return fail("connect");
	prepare(bytes);
	start = now();
	for (end = start + seconds; now() < end;) {
		int n = sendmmsg(s, messages, BATCH, 0);
		if (n > 0)
			count += n;
	}
	printf("{\"count\":%lu,\"seconds\":%.6f}\n", count, now() - start);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	if (s < 0)
		return fail("socket");
	if (argc == 4 && strcmp(argv[1], "receive") == 0) {
		address.sin_port = htons(atoi(argv[2]));
		return receive(s, address, strtod(argv[3], NULL));
	}
	if (argc == 6 && strcmp(argv[1], "send") == 0 && inet_pton(AF_INET, argv[2], &address.sin_addr) == 1 &&
	    strtoul(argv[4], NULL, 10) <= LARGEST) {
		address.sin_port = htons(atoi(argv[3]));
		return transmit(s, address, strtoul(argv[4], NULL, 10), strtod(argv[5], NULL));
	}
	fputs("blast receive PORT SECONDS | blast send ADDRESS PORT BYTES SECONDS\n", stderr);
	return 2;
}
