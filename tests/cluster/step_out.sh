#!/usr/bin/env bash
# Scenario 14, and an orderly stop while a change is under way: a node whose state store is full steps out and the others take
# over what it owned; a client whose change was not confirmed when its node stopped is told that the outcome is unknown.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 16M 2
owner=$(volume_owner n1 "$VOLUME")
other=$(nodes_all | grep -vx "$owner" | head -n 1)
mapfile -t others < <(nodes_all | grep -vx "$owner")

say "-- stopped while a change is under way"
for node in "${others[@]}"; do tb pause "$node" agent; done
rc=0
on "$owner" /volumes create pending size=4M replicas=1 >"$OUT/pending" 2>&1 &
client=$!
sleep 0.4
agent=$(agent_pid "$owner")
kill -TERM "$agent"
kill -TERM "$agent" # a second one changes nothing
now_ms since
wait "$client" || rc=$?
expect "the client is told that the outcome is unknown" same 4 "$rc"
expect "... in words" grep -q 'may still take effect' "$OUT/pending"
for node in "${others[@]}"; do tb resume "$node"; done
agent_gone() { ! agent_runs "$1"; }
eventually 16 "the agent has ended" agent_gone "$owner"
eventually 10 "the volume is served elsewhere" volume_owner_is_not "$other" "$VOLUME" "$owner"
tb start "$owner" >/dev/null
eventually 20 "it is back" cluster_sees 3 "${others[@]}"
both_in_sync() { same 2 "$(volume_in_sync "$other" "$VOLUME" | wc -l)" >/dev/null; }
eventually 20 "both replicas are in sync" both_in_sync

say "-- its state store is full"
owner=$(volume_owner "$other" "$VOLUME")
mapfile -t others < <(nodes_all | grep -vx "$owner")
other=${others[0]}
kill -KILL "$(agent_pid "$owner")"
eventually 10 "the volume is served elsewhere" volume_owner_is_not "$other" "$VOLUME" "$owner"
full=$owner state=$DIR/nodes/$owner/state
tb exec "$full" -- bash -c "mkdir /run/small && mount -t tmpfs -o size=40m tmpfs /run/small && cp -a $state/. /run/small/ && mount --bind /run/small $state"
tb start "$full" >/dev/null
eventually 20 "$full is back, on a small disk" cluster_sees 3 "${others[@]}"
tb exec "$full" -- bash -c "cat /dev/zero >$state/filler" 2>/dev/null || true
for i in 1 2 3 4 5 6 7 8; do
    on "$other" /volumes create "fill$i" size=1M replicas=1 >/dev/null 2>&1 || true
    ! grep -q 'steps out of the cluster' "$DIR/nodes/$full/log/agent.log" || break
done
expect "$full says that it steps out" grep -q 'steps out of the cluster' "$DIR/nodes/$full/log/agent.log"
eventually 10 "the others go on without it" cluster_sees 2 "${others[@]}"
says_why() { on "$full" status 2>/dev/null | grep -q 'state store of this node failed'; }
eventually 5 "its status says why" says_why
on "$other" /volumes create later size=4M replicas=2 >/dev/null || fail "no change is possible without $full"
ok "changes are made without it"
tb exec "$full" -- rm -f "$state/filler"
kill -TERM "$(agent_pid "$full")"
eventually 16 "its agent stops when asked" agent_gone "$full"
tb start "$full" >/dev/null
eventually 20 "with room again it is back" cluster_sees 3 "${others[@]}"
