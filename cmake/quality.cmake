# Warnings, and the rule that keeps results equal on every machine: no contraction of a*b+c, no relaxed arithmetic.

set(WARPMEM_SANITIZE "" CACHE STRING "Sanitizers for the C++ tests: empty, address;undefined, or thread")
option(WARPMEM_WERROR "Treat compiler warnings as errors" OFF)

function(warpmem_quality target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off -Wall -Wextra -Wpedantic -Wshadow -Wvla>)
  if(WARPMEM_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
  if(WARPMEM_SANITIZE)
    foreach(sanitizer IN LISTS WARPMEM_SANITIZE)
      target_compile_options(${target} PRIVATE -fsanitize=${sanitizer} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
      target_link_options(${target} PRIVATE -fsanitize=${sanitizer})
    endforeach()
  endif()
endfunction()
