#!/usr/bin/env bash
# A single node is a working cluster; it grows to 2, 3 and 5 nodes while a client uses a volume on it without an error.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 1
volume_make 64M 1

io_start --seconds 60 -- n1
io_under_way
for count in 2 3 4 5; do
    now_ms since
    tb add >/dev/null
    # shellcheck disable=SC2046 # names without blanks
    eventually 10 "$count nodes, and all of them see $count" cluster_sees "$count" $(nodes_all)
    say "from $((count - 1)) to $count nodes in $(elapsed "$since") s"
done
io_stop
io_verified

on n5 /volumes create late size=16M replicas=3 >/dev/null || fail "the grown cluster makes no volume of three replicas"
expect "a volume of three replicas can be made from the newest node" same 3 "$(volume_members n2 late | wc -l)"
