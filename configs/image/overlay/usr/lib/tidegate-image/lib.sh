# What the scripts of the image share. Sourced, never run.

fat=/boot/firmware
data=/data

# Tells the log and every console.
tell() {
    echo "tidegate: $*"
    for console in $(cat /sys/class/tty/console/active); do
        printf '\r\ntidegate: %s\r\n' "$*" 2>/dev/null >"/dev/$console" || true
    done
}

# card NAME: standard input becomes a file of the FAT partition, if it is not that already. The partition is writable for that
# moment only; a file is written whole under another name first. A card that cannot be written is told, and keeps nobody from
# starting the gateway.
card() {
    cat >"/run/tidegate/card.new"
    cmp -s /run/tidegate/card.new "$fat/$1" && return 0
    if writable; then
        { cp /run/tidegate/card.new "$fat/new.tmp" && sync "$fat/new.tmp" && mv "$fat/new.tmp" "$fat/$1"; } || echo "$1 could not be written onto the card" >&2
    fi
    readonly_again
}

# uncard NAME: takes a file from the FAT partition.
uncard() {
    [ -e "$fat/$1" ] || return 0
    if writable; then rm -f "$fat/$1"; fi
    readonly_again
}

# Several scripts may want to write at one time.
writable() {
    exec 9>/run/tidegate/card.lock
    flock 9
    mount -o remount,rw "$fat" || { echo "the FAT partition cannot be written" >&2; return 1; }
}

readonly_again() {
    sync -f "$fat" || true
    mount -o remount,ro "$fat" || true
    flock -u 9
    exec 9>&-
}

version() { cat /usr/share/tidegate-image/version; }
