#!/usr/bin/env bash
# C1: a configuration change that was answered is there after kill -9 of every agent and every corosync at once, and
# after a power cut of all nodes; a majority keeps it while the minority is cut off; a minority refuses changes.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3

all_have() {
    local node
    for node in n1 n2 n3; do on "$node" "/volumes/$1" get >/dev/null || return 1; done
}
nobody_has() {
    local node
    for node in n1 n2 n3; do ! on "$node" "/volumes/$1" get >/dev/null 2>&1 || return 1; done
}
all_alike() {
    local node
    for node in n2 n3; do [ "$(on n1 /volumes ls)" = "$(on "$node" /volumes ls)" ] || return 1; done
}

on n2 /volumes create before size=16M replicas=2 >/dev/null || fail "could not create a volume"
# The very next thing after the answer.
kill_at_once "${DIRECTORD##*/}" n1 n2 n3
kill_at_once corosync n1 n2 n3
ok "every agent and corosync was killed"
for node in n1 n2 n3; do tb start "$node"; done
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 10 "the change is there, on every node" all_have before
eventually 10 "all nodes give the same answer" all_alike

on n3 /volumes create power size=16M replicas=2 >/dev/null || fail "could not create a volume"
for node in n1 n2 n3; do tb kill "$node" power & done
wait
for node in n1 n2 n3; do tb start "$node" & done
wait
eventually 20 "the cluster is whole again after a power cut of all" cluster_sees 3 n1 n2 n3
eventually 10 "both changes are there, on every node" all_have power
expect "the older one too" all_have before

tb isolate n3
eventually 10 "n3 knows that it is in a minority" node_not_quorate n3
eventually 10 "n1 and n2 go on" cluster_sees 2 n1 n2
now_ms since
refused "a change in the minority" 'quor|majority' on n3 /volumes create minority size=16M replicas=1
say "refused after $(elapsed "$since") s"
on n1 /volumes create majority size=16M replicas=2 >/dev/null || fail "the majority makes no volume"
ok "a change on the majority is answered"
tb kill n3 power
kill_at_once "${DIRECTORD##*/}" n1 n2
kill_at_once corosync n1 n2
tb heal
for node in n1 n2 n3; do tb start "$node"; done
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 10 "the majority's change is there, on every node" all_have majority
expect "what was refused is nowhere" nobody_has minority
eventually 10 "all nodes give the same answer" all_alike
