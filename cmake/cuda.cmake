# The _cuda module. WARPMEM_CUDA=AUTO builds it when a working nvcc is found and goes on without it otherwise; ON requires it; OFF leaves it out.
# The CUDA runtime is linked statically and libcuda is not linked at all, so the module can be imported where there is no driver.
#
# WARPMEM_CUDA_TOOLKIT=SYSTEM takes the nvcc that CMake finds (CUDACXX, PATH, the usual places). WHEELS takes that of the nvidia-* wheels in the building
# Python environment, and insists on it: with the environment variable WARPMEM_CUDA_TOOLKIT=wheels, pip installs them beside the other build requirements.

set(WARPMEM_CUDA "AUTO" CACHE STRING "Build the CUDA module: AUTO, ON or OFF")
set_property(CACHE WARPMEM_CUDA PROPERTY STRINGS AUTO ON OFF)
string(TOUPPER "${WARPMEM_CUDA}" _warpmem_cuda)
if(NOT _warpmem_cuda MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "WARPMEM_CUDA must be AUTO, ON or OFF, not '${WARPMEM_CUDA}'")
endif()

set(WARPMEM_CUDA_TOOLKIT "SYSTEM" CACHE STRING "Where nvcc comes from: SYSTEM or WHEELS")
set_property(CACHE WARPMEM_CUDA_TOOLKIT PROPERTY STRINGS SYSTEM WHEELS)
string(TOUPPER "${WARPMEM_CUDA_TOOLKIT}" _warpmem_toolkit)
if(NOT _warpmem_toolkit MATCHES "^(SYSTEM|WHEELS)$")
  message(FATAL_ERROR "WARPMEM_CUDA_TOOLKIT must be SYSTEM or WHEELS, not '${WARPMEM_CUDA_TOOLKIT}'")
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

set(CMAKE_CUDA_ARCHITECTURES 80)
if(_warpmem_toolkit STREQUAL "WHEELS")
  execute_process(COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/tools/cuda_wheels.py"
    OUTPUT_VARIABLE _warpmem_root ERROR_VARIABLE _warpmem_reason RESULT_VARIABLE _warpmem_status
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(NOT _warpmem_status EQUAL 0)
    message(FATAL_ERROR "WARPMEM_CUDA_TOOLKIT=WHEELS, but ${_warpmem_reason}")
  endif()
  # The wheels have lib where nvcc expects lib64, and no libcudart.so without a version.
  set(CMAKE_CUDA_COMPILER "${_warpmem_root}/bin/nvcc")
  set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -L${_warpmem_root}/lib")
  file(GLOB CUDA_CUDART "${_warpmem_root}/lib/libcudart.so.*")
  link_directories("${_warpmem_root}/lib")
  message(STATUS "warpmem: nvcc of the wheels in ${_warpmem_root}")
else()
  # Compiles a probe in a project of its own, so that a broken or mismatched nvcc does not end this configuration.
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    warpmem_without_cuda("no working nvcc was found")
    return()
  endif()
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
set(WARPMEM_CUDA_ARCHITECTURES "" CACHE STRING "Compute capabilities to build for, such as 90; empty: all that a wheel holds")
if(WARPMEM_CUDA_ARCHITECTURES)
  set(_warpmem_architectures ${WARPMEM_CUDA_ARCHITECTURES})
endif()
message(STATUS "warpmem: CUDA with nvcc ${CMAKE_CUDA_COMPILER_VERSION} for sm ${_warpmem_architectures}")

pybind11_add_module(_cuda MODULE csrc/bindings/cuda_module.cpp csrc/bindings/device_array.cpp csrc/bindings/device_kmeans.cpp
  csrc/bindings/device_encode.cpp csrc/bindings/device_select.cpp csrc/bindings/page_cache.cpp csrc/cuda/cached_list.cpp csrc/cuda/current_device.cu csrc/cuda/device.cu csrc/cuda/device_heap.cpp
  csrc/cuda/kmeans.cu csrc/cuda/kmeans_train.cpp csrc/cuda/mmr.cu csrc/cuda/page_cache.cpp csrc/cuda/page_copies.cpp csrc/cuda/page_loader.cpp csrc/cuda/page_room.cpp
  csrc/cuda/pages.cu csrc/cuda/pq.cu csrc/cuda/runtime_cuda.cu csrc/cuda/scan.cu csrc/cuda/scan_batch.cpp csrc/cuda/scan_lane.cpp
  csrc/cuda/scan_pq.cu csrc/cuda/scan_queue.cpp csrc/cuda/select_k.cu csrc/cuda/self_test.cpp csrc/cuda/self_test_kmeans.cpp csrc/cuda/self_test_scan.cpp
  csrc/cuda/staging.cpp)
target_link_libraries(_cuda PRIVATE warpmem_core Threads::Threads) # warpmem_core: which the self-test compares with
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
