#!/bin/busybox sh
# PID 1 inside user-mode Linux. Its root is the host's own, read-only; memory lies where programs write.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev 2>/dev/null
$B mkdir -p /dev/pts /dev/shm; $B mount -t devpts devpts /dev/pts; $B mount -t tmpfs tmpfs /dev/shm
$B mount -t tmpfs tmpfs /run; $B mount -t tmpfs tmpfs /var/lib/bluetooth; $B mount -t tmpfs tmpfs /media
$B mkdir /media/out /media/tmp /run/dbus; $B mount -t hostfs -o "$RIG_OUT" none /media/out
[ -e /dev/vhci ] || $B mknod /dev/vhci c 10 137
cp /etc/machine-id /run/machine-id 2>/dev/null
ip link set lo up
export RIG_OUT=/media/out TMPDIR=/media/tmp HOME=/media/tmp
cd /media/tmp
# A test that hangs must not hang whoever waits for it.
$B timeout "${RIG_SECONDS:-420}" "$RIG_PROGRAM" $RIG_WORD > $RIG_OUT/program.log 2>&1
echo $? > $RIG_OUT/rc
$B sync; $B poweroff -f
