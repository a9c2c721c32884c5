#!/usr/bin/env bash
# Persistent reservations are the cluster's (I14): the same through every node, before and after the loss of the owner, also of all
# power; what was acknowledged is there, also when the owner dies with a change under way (scenario 33).
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 3
PROBE=$BUILD/tests/cluster/reserve_probe
A=iqn.2026-01.org.director:a B=iqn.2026-01.org.director:b
probe() { # NODE INITIATOR COMMAND...
    local node=$1
    shift
    tb exec client -- timeout 60 "$PROBE" "$(url "$node")" "$@"
}
keys_are() { # WORDS NODE...
    local words=$1 node
    shift
    for node in "$@"; do same "$words" "$(probe "$node" "$A" keys)" || return 1; done
}

expect "A registers at the owner and reserves, write exclusive for registrants" probe "$OWNER" "$A" register 0xa0000000a reserve 5
expect "B registers through another node" probe "$OTHER" "$B" register 0xb0000000b
expect "every node says the same" keys_are "a0000000a b0000000b type 5 holder a0000000a" n1 n2 n3
expect "B, registered, may write" [ "$(probe "$OTHER" "$B" write)" = good ]
expect "B's other path, not registered, may not" [ "$(probe "$OWNER" "$B" write)" = conflict ]

# Scenario 33: B goes on changing its key while the owner dies, and A's reservation is preempted after it.
probe "$OTHER" "$B" count 6 >"$OUT/count" &
COUNT=$!
first_owner=$OWNER
wait_for 5 test -d "/proc/$COUNT"
sleep_until_counting() { probe "$OTHER" "$A" keys | grep -qE '^[1-9a-f][0-9a-f]* '; }
wait_for 5 sleep_until_counting
tb kill "$OWNER" agent
wait "$COUNT" || { cat "$OUT/count"; fail "a change that was acknowledged is not there, or one that was not asked for is"; }
ok "the owner died with changes under way: $(cat "$OUT/count")"
eventually 10 "another node owns $VOLUME" volume_owner_is_not "$OTHER" "$VOLUME" "$first_owner"
keys=$(probe "$OTHER" "$A" keys)
expect "A holds its reservation still" grep -q "type 5 holder a0000000a" <<<"$keys"
last=${keys%% *}
expect "B preempts A" probe "$OTHER" "$B" key "0x$last" preempt 0xa0000000a 1
tb start "$first_owner"
eventually 20 "$first_owner is back" cluster_sees 3 n1 n2 n3
expect "every node knows the new holder" keys_are "$last type 1 holder $last" n1 n2 n3
expect "who is not registered may not write" [ "$(probe "$first_owner" "$A" write)" = conflict ]

for node in n1 n2 n3; do tb kill "$node" power; done
for node in n1 n2 n3; do tb start "$node"; done
eventually 30 "all nodes are back after the loss of all power" cluster_sees 3 n1 n2 n3
for node in n1 n2 n3; do eventually 20 "$node serves $VOLUME" portal_serves "$node"; done
expect "the reservation is there still" keys_are "$last type 1 holder $last" n1 n2 n3
expect "B clears it" probe "$OTHER" "$B" key "0x$last" clear
expect "and all may write" [ "$(probe n1 "$A" write)" = good ]
