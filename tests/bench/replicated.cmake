# The replicated write path: the product with TLS and in clear, its floor, a GlusterFS volume.
add_library(director_bench STATIC bench_meter.c bench_load.c)
target_link_libraries(director_bench PUBLIC director_base PkgConfig::UV)
foreach(variant replicated_bench replicated_bench_plain)
  add_executable(${variant} replicated_bench.c bench_cluster.c)
  target_link_libraries(${variant} PRIVATE director_bench director_replication director_agent_io director_plugin_loader)
  add_dependencies(${variant} plugin_file plugin_ram)
endforeach()
target_sources(replicated_bench_plain PRIVATE peer_plain.c) # instead of peer_tls.c of the library
add_executable(floor_bench floor_bench.c)
target_link_libraries(floor_bench PRIVATE director_bench PkgConfig::URING)
add_executable(gluster_bench gluster_bench.c)
target_link_libraries(gluster_bench PRIVATE director_bench ${CMAKE_DL_LIBS})
