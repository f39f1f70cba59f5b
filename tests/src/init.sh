#!/bin/busybox sh
# First process of a test guest: load virtio, then obey the command channel on the second serial line.
# A command is one line: number, seconds it may take, script in base64. The answer is its output and a closing line.
if [ "$1" != channel ]; then
	/bin/busybox mkdir -p /proc /sys /dev /tmp /bin /sbin /usr/bin /usr/sbin
	/bin/busybox --install -s /bin
	export PATH=/bin:/sbin:/usr/bin:/usr/sbin
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	mount -t tmpfs -o size=90% tmp /tmp
	echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
	echo 0 > /proc/sys/net/ipv6/conf/default/router_solicitations
	while read -r module; do insmod "$module"; done < /modules/order
	ip link set lo up
	# Orphans come to the first process when they end. The shell that reads commands must not be it: busybox's `read`
	# loses what it has of a line when SIGCHLD arrives.
	setsid sh /init channel < /dev/ttyS1 > /dev/ttyS1 2>&1 &
	# A shell for people, on the third.
	while :; do setsid sh -i < /dev/ttyS2 > /dev/ttyS2 2>&1; sleep 1; done &
	while :; do sleep 3600; done
fi
stty raw -echo
echo "@@ready"
while read -r number seconds script; do
	echo "$script" | base64 -d > /tmp/script.$number
	timeout -s KILL "$seconds" sh /tmp/script.$number < /dev/null 2>&1
	echo "@@end:$number:$?"
	rm -f /tmp/script.$number
done
