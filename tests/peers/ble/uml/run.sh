#!/usr/bin/env bash
# Runs a program in the Bluetooth rig, as root of a kernel of its own.
#
#   run.sh KERNEL FOLDER PROGRAM WORD [NAME=value…]
#
# The program's output is in FOLDER/program.log afterwards; the exit status is the program's, 99 when the kernel did not get
# that far. The guest's root is this machine's file system: "ro" must stay, or the guest writes here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kernel=$1 folder=$2 program=$3 word=$4
shift 4
rm -f "$folder/rc"
# The guest's memory is a file that is run from; a container's /dev/shm may lack the room, or the right, for that.
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || true)
if [ "${room:-0}" -lt 700000 ] || grep -q '^[^ ]* /dev/shm [^ ]* [^ ]*noexec' /proc/mounts; then export TMPDIR=$folder; fi
"$kernel" mem=640M root=/dev/root rootfstype=hostfs rootflags=/ ro init="$here/init.sh" con=null con0=null,fd:1 loglevel=5 panic=-1 \
    RIG_OUT="$folder" RIG_PROGRAM="$program" RIG_WORD="$word" "$@" < /dev/null > "$folder/console.log" 2>&1 || true
exit "$(cat "$folder/rc" 2>/dev/null || echo 99)"
