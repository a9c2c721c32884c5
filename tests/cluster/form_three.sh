#!/usr/bin/env bash
# Three agents started together with empty state and one shared key form one quorate cluster, no other input, in under
# 10 s; every node gives the same answers; a fourth joins live in under 5 s.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin 3

eventually 10 "three nodes are one quorate cluster" cluster_sees 3 n1 n2 n3
formed=$(elapsed)
say "formed in $formed s, from the start of the first process"
[ "${formed%.*}" -lt 10 ] || fail "that is more than 10 s"

uuid=$(prop n1 / uuid)
for node in n2 n3; do
    expect "$node is in the same cluster as n1" same "$uuid" "$(prop "$node" / uuid)"
    expect "$node lists the same nodes as n1" same "$(on n1 /nodes ls)" "$(on "$node" /nodes ls)"
done

now_ms since
fourth=$(tb add)
eventually 5 "a fourth node has joined, and all four see four" cluster_sees 4 n1 n2 n3 "$fourth"
joined=$(elapsed "$since")
say "joined in $joined s, from the start of its process"
[ "${joined%.*}" -lt 5 ] || fail "that is more than 5 s"
expect "the fourth is in the same cluster" same "$uuid" "$(prop "$fourth" / uuid)"
