# Instruction sets beyond the baseline, one source file each. Only these files get the flags; csrc/cpu/dispatch.cpp asks the processor before it
# calls them, so one build runs on every machine of its architecture.

function(warpmem_simd target)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
    return()
  endif()
  target_sources(${target} PRIVATE csrc/cpu/avx2.cpp csrc/cpu/crc32c_sse42.cpp)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/crc32c_sse42.cpp PROPERTIES COMPILE_OPTIONS "-msse4.2")
  target_compile_definitions(${target} PRIVATE WARPMEM_HAVE_AVX2=1 WARPMEM_HAVE_SSE42=1)
endfunction()
