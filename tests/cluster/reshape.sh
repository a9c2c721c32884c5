#!/usr/bin/env bash
# A volume changes its shape while it is in use: a replica comes, goes, moves, also that of the owner and through the loss of a node.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 4
volume_make 64M 2
mapfile -t first < <(volume_members n1 "$VOLUME")
mapfile -t spare < <(nodes_all | grep -vxF -f <(printf '%s\n' "${first[@]}"))
uuid=$(prop n1 "/volumes/$VOLUME" uuid)
in_sync() { volume_is_in_sync "$1" "$VOLUME"; }
members_are() { [ "$(volume_members "$1" "$VOLUME" | tr '\n' ' ')" = "$2 " ]; }
in_sync_are() { members_are "$1" "$2" && in_sync "$1"; }
files_on() { find "$DIR/nodes/$1/state" -name "$uuid.*" | grep -q .; }
no_files_on() { ! files_on "$1"; }
no_tasks() { [ "$(on "$1" /tasks ls | jq '[.[] | select(.properties.state == "running")] | length')" = 0 ]; }
sorted() { printf '%s\n' "$@" | sort | tr '\n' ' ' | sed 's/ $//'; }
change() { on "$@" >"$OUT/change" 2>&1 || fail "refused: $(cat "$OUT/change")"; }
eventually 10 "both replicas are in sync" in_sync n1
io_start --seconds 150 --rate 1500 --blocks 8192 -- n1 n2 n3 n4
io_under_way

say "-- a replica comes"
change n1 "/volumes/$VOLUME" add-replica "node=${spare[0]}"
eventually 20 "three replicas are in sync" in_sync_are n1 "$(sorted "${first[@]}" "${spare[0]}")"
refused "the same once more" 'already|has a replica' on n2 "/volumes/$VOLUME" add-replica "node=${spare[0]}"

say "-- the owner's goes"
gone=$(volume_owner n1 "$VOLUME")
other=$(nodes_all | grep -vx "$gone" | head -n 1)
stays=$(printf '%s\n' "${first[@]}" | grep -vx "$gone")
change "$other" "/volumes/$VOLUME" remove-replica "node=$gone"
eventually 15 "two replicas are left, another node serves" in_sync_are "$other" "$(sorted "$stays" "${spare[0]}")"
eventually 10 "its files are gone" no_files_on "$gone"

say "-- one moves, and the owner dies meanwhile"
owner=$(volume_owner n1 "$VOLUME")
mover=$(volume_members n1 "$VOLUME" | grep -vx "$owner")
other=$mover
change "$other" "/volumes/$VOLUME" move-replica "from=$mover" "to=$gone"
tb kill "$owner" agent
tb start "$owner" >/dev/null
eventually 40 "it has moved" in_sync_are "$other" "$(sorted "$owner" "$gone")"
eventually 10 "its files are gone" no_files_on "$mover"
eventually 10 "the task has ended" no_tasks "$other"

io_stop
io_verified
eventually 5 "the replicas are equal byte by byte" replicas_equal "$VOLUME"
