# director_test(NAME name SOURCES ... LIBS ... [LABELS unit] [TIMEOUT 60])
# One cmocka program, registered with ctest under a label (unit unless given).
function(director_test)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT T_LABELS)
    set(T_LABELS unit)
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 60)
  endif()
  add_executable(${T_NAME} ${T_SOURCES})
  target_link_libraries(${T_NAME} PRIVATE ${T_LIBS} PkgConfig::CMOCKA)
  add_test(NAME ${T_NAME} COMMAND ${T_NAME})
  set_tests_properties(${T_NAME} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT})
endfunction()

# director_plugin(NAME name SOURCES ... LIBS ...): a loadable module in <build>/plugins/<name>.so
function(director_plugin)
  cmake_parse_arguments(P "" "NAME" "SOURCES;LIBS" ${ARGN})
  add_library(plugin_${P_NAME} MODULE ${P_SOURCES})
  target_link_libraries(plugin_${P_NAME} PRIVATE ${P_LIBS})
  set_target_properties(plugin_${P_NAME} PROPERTIES PREFIX "" OUTPUT_NAME ${P_NAME}
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/plugins)
endfunction()
