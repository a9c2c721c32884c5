#!/usr/bin/env bash
# The owner's agent is stopped (SIGSTOP), another node takes over, the old owner goes on: it is sealed. No stale
# acknowledgement, no stale read, through whichever portal the client works.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2
epoch=$(volume_epoch n1 "$VOLUME")

io_start --seconds 12 -- "$OWNER" "$OTHER"
io_under_way
tb pause "$OWNER"
eventually 15 "another node owns $VOLUME" volume_owner_is_not "$OTHER" "$VOLUME" "$OWNER"
tb resume "$OWNER"
expect "the epoch went up" [ "$(volume_epoch "$OTHER" "$VOLUME")" -gt "$epoch" ]
io_verified
say "longest gap in acknowledged I/O while the owner was stopped: $IO_GAP_MS ms"
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 30 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"

say "-- all of the owner's node stops, and the volume has verified reads"
on n1 "/volumes/$VOLUME" set reads=verified >/dev/null || fail "verified reads cannot be set"
OWNER=$(volume_owner n1 "$VOLUME")
OTHER=$(nodes_on | grep -vx "$OWNER" | head -n 1)
io_start --seconds 12 -- "$OWNER" "$OTHER"
io_under_way
tb pause "$OWNER" all
eventually 15 "another node owns $VOLUME" volume_owner_is_not "$OTHER" "$VOLUME" "$OWNER"
tb resume "$OWNER"
io_verified
say "longest gap in acknowledged I/O while the owner's node was stopped: $IO_GAP_MS ms"
eventually 20 "the cluster is whole again" cluster_sees 3 n1 n2 n3
eventually 30 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
