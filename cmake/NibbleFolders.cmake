# nibble_folder(NAME [COLD] [LINK library...] [WITHOUT folder...])
# One folder under nibble/ becomes the library nibble_NAME, which links the folders declared before it (but for those
# WITHOUT which its tests are to be built), the test program NAME_tests (from *_test.cc) and the benchmark NAME_bench
# (from *_bench.cc). COLD: no time is spent in its code, which -O1 compiles faster.

add_library(nibble_options INTERFACE)
target_include_directories(nibble_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(nibble_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
# Sums are written out in the order and precision they are meant to have: the compiler must not
# fuse a multiplication and an addition on its own. Kernels ask for FMA by name.
target_compile_options(nibble_options INTERFACE -ffp-contract=off)

# Most of the time of a file goes into headers. So the files of a target are compiled eight at a time
# (CMAKE_UNITY_BUILD; names in anonymous namespaces therefore differ within a folder), and the headers of other
# libraries once for the folders and once for the tests (CMAKE_DISABLE_PRECOMPILE_HEADERS turns that off). With ccache
# neither is done: it finds single files again, and who changes one has to wait for one.
if(NOT DEFINED CMAKE_UNITY_BUILD AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_UNITY_BUILD ON)
endif()

# Files with code for several instruction sets (-inl.h) stay alone: what they include is made for one of them. Their
# loops are unrolled so far that clang with sanitizers would take several times as long: what is read and written is
# checked, but by calls, and neither the sum of each pointer nor that it is not null.
function(nibble_keep_alone)
  set(clang -fno-sanitize=pointer-overflow,null -mllvm -asan-instrumentation-with-call-threshold=0)
  foreach(source ${ARGN})
    file(STRINGS ${source} targets REGEX "-inl\\.h\"" LIMIT_COUNT 1)
    if(targets)
      set_source_files_properties(${source} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
        COMPILE_OPTIONS "$<$<CXX_COMPILER_ID:Clang>:${clang}>")
    endif()
  endforeach()
endfunction()

# nibble_precompile(TARGET OWNER header...): OWNER's precompiled headers, in TARGET; OWNER itself makes them.
function(nibble_precompile target owner)
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    return()
  elseif(target STREQUAL owner)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
endfunction()

if(NIBBLE_BUILD_TESTS)
  enable_testing()
  include(GoogleTest)
  find_package(GTest REQUIRED)
  find_package(rapidcheck REQUIRED)
  add_custom_target(test_programs)
endif()
if(NIBBLE_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()

# nibble_test(NAME SOURCES file... [LINK library...] [LABELS label...] [TIMEOUT seconds] [TOGETHER word...])
# Each case is a test of its own, in a process of its own, but for those whose names have a word of TOGETHER: they
# are one test for each word.
function(nibble_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;LABELS;TOGETHER" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS fast)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  add_dependencies(test_programs ${name})
  target_link_libraries(${name} PRIVATE nibble_test_support ${ARG_LINK} nibble_options
    rapidcheck GTest::gtest_main GTest::gmock)
  # What they call is in libraries, which are optimised.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1> $<$<CONFIG:RelWithDebInfo>:-O0>)
  nibble_precompile(${name} base_tests <nlohmann/json.hpp> <gtest/gtest.h> <gmock/gmock.h>)
  set(alone "*-")
  foreach(word ${ARG_TOGETHER})
    string(APPEND alone "*${word}*:")
    add_test(NAME ${name}.${word} COMMAND ${name} --gtest_brief=1 "--gtest_filter=*${word}*")
    set_tests_properties(${name}.${word} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
  endforeach()
  gtest_discover_tests(${name} TEST_FILTER "${alone}" TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES
    PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

function(nibble_folder name)
  cmake_parse_arguments(ARG "COLD" "" "LINK;WITHOUT" ${ARGN})
  set(folder ${PROJECT_SOURCE_DIR}/nibble/${name})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*.cc)
  set(tests ${sources})
  set(benches ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER benches INCLUDE REGEX "_bench\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|_bench|/main)\\.cc$")
  nibble_keep_alone(${sources} ${tests})
  get_property(earlier GLOBAL PROPERTY NIBBLE_FOLDERS)
  list(TRANSFORM ARG_WITHOUT PREPEND nibble_)
  list(REMOVE_ITEM earlier ${ARG_WITHOUT})

  if(sources)
    add_library(nibble_${name} STATIC ${sources})
    target_link_libraries(nibble_${name} PUBLIC ${ARG_LINK} ${earlier} PRIVATE nibble_options)
    set(precompiled nibble_base)
    if(ARG_COLD)
      target_compile_options(nibble_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
      set(precompiled nibble_config)  # the first of them
    endif()
    nibble_precompile(nibble_${name} ${precompiled} <fmt/format.h> <nlohmann/json.hpp> <tl/expected.hpp>)
  else()
    add_library(nibble_${name} INTERFACE)
    target_link_libraries(nibble_${name} INTERFACE ${ARG_LINK} ${earlier})
  endif()
  set_property(GLOBAL APPEND PROPERTY NIBBLE_FOLDERS nibble_${name})

  if(NIBBLE_BUILD_TESTS AND tests)
    nibble_test(${name}_tests SOURCES ${tests} LINK nibble_${name})
  endif()
  if(NIBBLE_BUILD_BENCHMARKS AND benches)
    add_executable(${name}_bench ${benches})
    target_link_libraries(${name}_bench PRIVATE nibble_${name} nibble_options benchmark::benchmark_main)
  endif()
endfunction()

# nibble_embed(SOURCE MACRO FILE): SOURCE puts FILE into the program; MACRO is its path (base/embed.h).
function(nibble_embed source macro file)
  set_property(SOURCE ${source} APPEND PROPERTY COMPILE_DEFINITIONS ${macro}="${PROJECT_SOURCE_DIR}/${file}")
  set_property(SOURCE ${source} APPEND PROPERTY OBJECT_DEPENDS ${PROJECT_SOURCE_DIR}/${file})
endfunction()
