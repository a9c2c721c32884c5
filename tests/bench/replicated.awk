# Raw lines (system store replicas workload IOPS MB/s p50 p99 CPU) to medians and ratios.
function median(key, field,    n, i, j, t, v) {
    n = count[key]
    for (i = 1; i <= n; i++) v[i] = value[key, field, i]
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && v[j] < v[j - 1]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
    return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}
function ratio(a, b) { return b > 0 ? sprintf("%.2f", a / b) : "-" }
NF == 9 {
    key = $1 SUBSEP $2 SUBSEP $3 SUBSEP $4
    n = ++count[key]
    for (i = 5; i <= 9; i++) value[key, i, n] = $i
    if ($1 == "store") next # has no replicas: shown with each count
    group = $2 SUBSEP $3 SUBSEP $4
    if (!(group in known)) { known[group] = 1; groups[++group_count] = group }
}
END {
    systems = split("floor store clear tls gluster gluster-tuned", system, " ")
    for (g = 1; g <= group_count; g++) {
        split(groups[g], part, SUBSEP)
        store = part[1]; replicas = part[2]; workload = part[3]
        printf "\n%s, %d replicas, %s\n  %-14s %9s %9s %9s %9s %9s\n", store, replicas, workload, "", "IOPS", "MB/s", "p50 us", "p99 us", "CPU us/IO"
        for (s = 1; s <= systems; s++) {
            key = system[s] SUBSEP store SUBSEP (system[s] == "store" ? 1 : replicas) SUBSEP workload
            rate[s] = latency[s] = 0
            if (!(key in count)) continue
            rate[s] = median(key, 5); latency[s] = median(key, 7)
            printf "  %-14s %9.0f %9.1f %9.1f %9.1f %9.2f\n", system[s], rate[s], median(key, 6), latency[s], median(key, 8), median(key, 9)
        }
        best = rate[5] > rate[6] ? rate[5] : rate[6]
        line[g] = sprintf("%-6s %8s %-8s | %10s %10s | %10s %10s | %9s %9s | %8s", store, replicas, workload, ratio(latency[3], latency[1]), ratio(latency[4], latency[1]),
            ratio(rate[3], rate[1]), ratio(rate[4], rate[1]), ratio(rate[4], rate[2]), ratio(rate[4], best),
            rate[3] > 0 && rate[4] > 0 ? sprintf("%.0f %%", 100 * (1 - rate[4] / rate[3])) : "-")
    }
    printf "\n%-6s %8s %-8s | %-21s | %-21s | %-19s | %8s\n", "", "", "", "p50 latency / floor", "throughput / floor", "TLS throughput /", ""
    printf "%-6s %8s %-8s | %10s %10s | %10s %10s | %9s %9s | %8s\n", "store", "replicas", "workload", "clear", "TLS", "clear", "TLS", "store", "gluster", "TLS cost"
    for (g = 1; g <= group_count; g++) print line[g]
    print "aims (writes): p50 at depth 1 < 1.5, throughput at depth 32 > 0.70, gluster > 3, TLS cost < 40 %"
}
