# Instruction sets beyond the baseline, one source file each. Only these files get the flags; csrc/cpu/dispatch.cpp asks the processor before it
# calls them, so one build runs on every machine of its architecture.

function(warpmem_simd target)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
    return()
  endif()
  target_sources(${target} PRIVATE csrc/cpu/avx2.cpp csrc/cpu/avx512.cpp csrc/cpu/crc32c_sse42.cpp)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/avx512.cpp PROPERTIES COMPILE_OPTIONS
    "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mfma;-mf16c")
  set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/crc32c_sse42.cpp PROPERTIES COMPILE_OPTIONS "-msse4.2")
  target_compile_definitions(${target} PRIVATE WARPMEM_HAVE_AVX2=1 WARPMEM_HAVE_SSE42=1)
  foreach(family IN ITEMS pack select_k kmeans pq)
    target_sources(${target} PRIVATE csrc/cpu/${family}_avx2.cpp csrc/cpu/${family}_avx512.cpp)
    set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/${family}_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    # GCC 12 takes the deliberately undefined operands of its own AVX-512 headers for mistakes.
    set_source_files_properties(${PROJECT_SOURCE_DIR}/csrc/cpu/${family}_avx512.cpp PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-Wno-uninitialized;-Wno-maybe-uninitialized")
  endforeach()
  target_compile_definitions(${target} PRIVATE WARPMEM_HAVE_AVX512=1)
endfunction()
