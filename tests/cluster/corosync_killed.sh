#!/usr/bin/env bash
# The owner's corosync dies (kill -9) or stops (SIGSTOP) while its agent lives: the node does not go on serving as if
# nothing were, nothing acknowledged is lost or stale, and the node comes back by itself.
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
begin_cluster 3
volume_make 64M 2

for what in kill pause; do
    OWNER=$(volume_owner n1 "$VOLUME")
    OTHER=$(nodes_on | grep -vx "$OWNER" | head -n 1)
    io_start --seconds 14 -- "$OWNER" "$OTHER"
    io_under_way
    tb "$what" "$OWNER" corosync
    if [ "$what" = pause ]; then
        eventually 15 "another node owns $VOLUME while $OWNER's corosync is stopped" volume_owner_is_not "$OTHER" "$VOLUME" "$OWNER"
        tb resume "$OWNER"
    fi
    io_verified
    say "longest gap in acknowledged I/O after $what of the owner's corosync: $IO_GAP_MS ms"
    eventually 30 "the cluster is whole again, by itself" cluster_sees 3 n1 n2 n3
    eventually 40 "$VOLUME is in sync" volume_is_in_sync n1 "$VOLUME"
    expect "the replicas are equal byte by byte" replicas_equal "$VOLUME"
done
