# Raw lines (system store replicas workload IOPS MB/s p50 p99 CPU) to medians and ratios. A ratio to a system that ran in the
# same rounds is the median of the rounds' ratios, so that a load that comes and goes touches both sides.
function sorted_median(v, n,    i, j, t) {
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function median(key, field,    n, i, v) {
    n = count[key]
    for (i = 1; i <= n; i++) v[i] = value[key, field, i]
    return n ? sorted_median(v, n) : 0
}
function ratio(a, b, field,    i, v) {
    if (!count[a] || !count[b]) return 0
    if (count[a] != count[b]) return median(b, field) > 0 ? median(a, field) / median(b, field) : 0
    for (i = 1; i <= count[a]; i++) v[i] = value[b, field, i] > 0 ? value[a, field, i] / value[b, field, i] : 0
    return sorted_median(v, count[a])
}
function cell(x) { return x > 0 ? sprintf("%.2f", x) : "-" }
function key_of(name) { return name SUBSEP store SUBSEP (name == "store" ? 1 : replicas) SUBSEP workload }
NF == 9 {
    key = $1 SUBSEP $2 SUBSEP $3 SUBSEP $4
    n = ++count[key]
    for (i = 5; i <= 9; i++) value[key, i, n] = $i
    if ($1 ~ /^tls\+/ && index(" " options, " " $1 " ") == 0) options = options $1 " "
    if ($1 == "store") next # has no replicas: shown with each count
    group = $2 SUBSEP $3 SUBSEP $4
    if (!(group in known)) { known[group] = 1; groups[++group_count] = group }
}
END {
    systems = split("floor store clear tls " options "gluster gluster-tuned gluster+wb", names, " ")
    for (g = 1; g <= group_count; g++) {
        split(groups[g], part, SUBSEP)
        store = part[1]; replicas = part[2]; workload = part[3]
        printf "\n%s, %d replicas, %s\n  %-14s %9s %9s %9s %9s %9s\n", store, replicas, workload, "", "IOPS", "MB/s", "p50 us", "p99 us", "CPU us/IO"
        for (s = 1; s <= systems; s++) {
            key = key_of(names[s])
            if (count[key])
                printf "  %-14s %9.0f %9.1f %9.1f %9.1f %9.2f\n", names[s], median(key, 5), median(key, 6), median(key, 7), median(key, 8), median(key, 9)
        }
        floor = key_of("floor"); clear = key_of("clear"); tls = key_of("tls"); alone = key_of("store")
        peer = median(key_of("gluster"), 5) > median(key_of("gluster-tuned"), 5) ? key_of("gluster") : key_of("gluster-tuned")
        one = workload ~ /-1$/ # with more in flight latency is throughput once more
        cost = ratio(tls, clear, 5)
        line[g] = sprintf("%-6s %8s %-8s | %8s %8s | %8s %8s | %8s %8s | %8s %8s | %8s", store, replicas, workload,
            cell(one ? ratio(clear, floor, 7) : 0), cell(one ? ratio(tls, floor, 7) : 0), cell(ratio(clear, floor, 5)), cell(ratio(tls, floor, 5)),
            cell(ratio(clear, floor, 9)), cell(ratio(tls, floor, 9)), cell(ratio(tls, alone, 5)), cell(ratio(tls, peer, 5)), cost > 0 ? sprintf("%.0f %%", 100 * (1 - cost)) : "-")
    }
    printf "\n%-6s %8s %-8s | %-17s | %-17s | %-17s | %-17s | %8s\n", "", "", "", "p50 lat. / floor", "rate / floor", "CPU / floor", "TLS rate /", ""
    printf "%-6s %8s %-8s | %8s %8s | %8s %8s | %8s %8s | %8s %8s | %8s\n", "store", "replicas", "workload", "clear", "TLS", "clear", "TLS", "clear", "TLS", "store", "gluster", "TLS cost"
    for (g = 1; g <= group_count; g++) print line[g]
    print "aims (writes): p50 at depth 1 < 1.5, throughput at depth 32 > 0.70, gluster > 3, TLS cost < 40 %"
}
