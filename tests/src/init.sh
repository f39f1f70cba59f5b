#!/bin/busybox sh
# First process of a test guest: load virtio, then obey the command channel on the second serial line.
# A command is one line: number, seconds it may take, script in base64. The answer is its output and a closing line.
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
while read -r module; do insmod "$module"; done < /modules/order
ip link set lo up
exec < /dev/ttyS1 > /dev/ttyS1 2>&1
stty raw -echo
echo "@@ready"
while read -r number seconds script; do
	echo "$script" | base64 -d > /tmp/script.$number
	timeout -s KILL "$seconds" sh /tmp/script.$number < /dev/null 2>&1
	echo "@@end:$number:$?"
	rm -f /tmp/script.$number
done
