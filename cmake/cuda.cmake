# The _cuda module. WARPMEM_CUDA=AUTO builds it when a working nvcc is found and goes on without it otherwise; ON requires it; OFF leaves it out.
# The CUDA runtime is linked statically and libcuda is not linked at all, so the module can be imported where there is no driver.

set(WARPMEM_CUDA "AUTO" CACHE STRING "Build the CUDA module: AUTO, ON or OFF")
set_property(CACHE WARPMEM_CUDA PROPERTY STRINGS AUTO ON OFF)
string(TOUPPER "${WARPMEM_CUDA}" _warpmem_cuda)
if(NOT _warpmem_cuda MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "WARPMEM_CUDA must be AUTO, ON or OFF, not '${WARPMEM_CUDA}'")
endif()

function(warpmem_without_cuda reason)
  if(_warpmem_cuda STREQUAL "ON")
    message(FATAL_ERROR "WARPMEM_CUDA=ON, but ${reason}. Install the CUDA toolkit 12.0 or newer, set CUDACXX to its nvcc, or use WARPMEM_CUDA=OFF.")
  endif()
  message(STATUS "warpmem: CPU only (${reason})")
endfunction()

if(_warpmem_cuda STREQUAL "OFF")
  message(STATUS "warpmem: CPU only (WARPMEM_CUDA=OFF)")
  return()
endif()

# Compiles a probe in a project of its own, so that a broken or mismatched nvcc does not end this configuration.
include(CheckLanguage)
set(CMAKE_CUDA_ARCHITECTURES 80)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  warpmem_without_cuda("no working nvcc was found")
  return()
endif()

enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  warpmem_without_cuda("nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.0")
  return()
endif()
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  set(_warpmem_architectures 80-real 90)
else()
  set(_warpmem_architectures 80-real 90-real 100-real 120)
endif()
message(STATUS "warpmem: CUDA with nvcc ${CMAKE_CUDA_COMPILER_VERSION} for sm ${_warpmem_architectures}")

pybind11_add_module(_cuda MODULE csrc/bindings/cuda_module.cpp csrc/cuda/device.cu csrc/cuda/kmeans.cu csrc/cuda/mmr.cu csrc/cuda/pages.cu
  csrc/cuda/pq.cu csrc/cuda/select_k.cu)
set_target_properties(_cuda PROPERTIES
  CUDA_ARCHITECTURES "${_warpmem_architectures}"
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_VISIBILITY_PRESET hidden
  CUDA_RUNTIME_LIBRARY Static
  INTERPROCEDURAL_OPTIMIZATION OFF)
target_compile_options(_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --threads=2 -Xcompiler=-ffp-contract=off,-Wall>)
warpmem_quality(_cuda)
install(TARGETS _cuda DESTINATION warpmem)
