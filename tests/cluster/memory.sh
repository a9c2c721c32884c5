#!/usr/bin/env bash
# An idle node's agent stays under 40 MiB resident, also after I/O has passed through it.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2

resident_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$(agent_pid "$1")/status"; }
within() {
    local node kib
    for node in n1 n2 n3; do
        kib=$(resident_kib "$node")
        say "    $1: $node $((kib / 1024)).$((kib % 1024 * 10 / 1024)) MiB"
        [ "$kib" -lt $((40 * 1024)) ] || return 1
    done
}
expect "idle agents are under 40 MiB" within "idle, one volume"
io_start --seconds 5 -- "$OWNER" "$OTHER"
io_verified
expect "and after I/O" within "after I/O"
