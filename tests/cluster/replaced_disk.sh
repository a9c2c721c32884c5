#!/usr/bin/env bash
# Scenarios 19 and 20: a replica's disk is replaced by an empty one (full sync under a new incarnation); the old disk that
# comes back is refused and left alone. Also when the disk is that of the owner.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 32M 2
mapfile -t members < <(volume_members n1 "$VOLUME")
witness=$(nodes_all | grep -vxF -f <(printf '%s\n' "${members[@]}"))
replica=$(printf '%s\n' "${members[@]}" | grep -vx "$OWNER")

power_on() { tb start "$1" >/dev/null 2>&1; }
both_in_sync() { same 2 "$(volume_in_sync "$witness" "$VOLUME" | wc -l)" >/dev/null; }
store_of() { printf '%s/nodes/%s/state/store' "$DIR" "$1"; }
eventually 10 "both replicas are in sync" both_in_sync

io_start --seconds 60 -- "$OWNER" "$replica" "$witness"
io_under_way

# replace NODE: its power goes, an empty disk comes in, power comes back.
replace() {
    tb kill "$1" power
    eventually 15 "$1 is out of the in-sync set" volume_is_alone "$1"
    rm -rf "$OUT/old-$1"
    mv "$(store_of "$1")" "$OUT/old-$1"
    mkdir "$(store_of "$1")"
    eventually 15 "$1 has power again, and an empty disk" power_on "$1"
}
volume_is_alone() { [ "$(volume_in_sync "$witness" "$VOLUME" | wc -l)" = 1 ] && ! volume_in_sync "$witness" "$VOLUME" | grep -qx "$1"; }

say "-- the disk of a replica"
replace "$replica"
eventually 40 "the blank replica is synced in full" both_in_sync
expect "... and was told to be a blank one" grep -q 'is made anew' "$DIR/nodes/$replica/log/agent.log"

say "-- the disk of the owner"
before=$(volume_owner "$witness" "$VOLUME")
replace "$before"
eventually 40 "the blank replica of the former owner is synced in full" both_in_sync

say "-- the old disk comes back"
tb kill "$before" power
eventually 15 "$before is out of the in-sync set" volume_is_alone "$before"
rm -rf "$(store_of "$before")"
mv "$OUT/old-$before" "$(store_of "$before")"
: >"$DIR/nodes/$before/log/agent.log"
eventually 15 "$before has power again, and its old disk" power_on "$before"
refused_old() { grep -q 'is not the disk that was in use last' "$DIR/nodes/$before/log/agent.log"; }
eventually 15 "the old disk is refused" refused_old
sleep 3
expect "... and stays out of the in-sync set" volume_is_alone "$before"
io_stop
io_verified

say "-- deleted while a replica's node is away"
tb kill "$before" power
on "$witness" "/volumes/$VOLUME" unexport >/dev/null || fail "$VOLUME cannot be unexported"
on "$witness" "/volumes/$VOLUME" delete >/dev/null || fail "$VOLUME cannot be deleted"
no_files() { [ -z "$(find "$(store_of "$1")" -name '*.data' -o -name '*.meta')" ]; }
has_files() { ! no_files "$1"; }
other=$(printf '%s\n' "${members[@]}" | grep -vx "$before")
eventually 10 "the node that is there deletes its files" no_files "$other"
expect "the one that is away still has them" has_files "$before"
eventually 15 "$before has power again" power_on "$before"
eventually 15 "and deletes them" no_files "$before"
