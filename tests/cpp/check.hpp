// A test harness of one page. TEST(name) { ... CHECK(condition); CHECK_EQ(a, b); } registers itself; run_tests() in main runs all, or those whose
// name contains the first argument, and returns the process's exit code.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <iterator>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back(Test{name, body}); }
};

inline int run_tests(int argc, char** argv) {
  int ran = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    const int before = failures();
    ++ran;
    try {
      test.body();
    } catch (const std::exception& error) {
      ++failures();
      std::printf("%s: unexpected exception: %s\n", test.name, error.what());
    }
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
  }
  std::printf("%d tests, %d failed checks\n", ran, failures());
  return failures() == 0 && ran > 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                          \
  static void test_##name();                                                \
  static const check::Registration registration_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) {                                                     \
      ++check::failures();                                                  \
      std::printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                       \
  } while (false)

#define CHECK_EQ(a, b)                                                                                                \
  do {                                                                                                                \
    const auto left_ = (a);                                                                                           \
    const auto right_ = (b);                                                                                          \
    if (!(left_ == right_)) {                                                                                         \
      ++check::failures();                                                                                            \
      std::cout << __FILE__ << ":" << __LINE__ << ": " << #a << " == " << left_ << ", not " << #b << " == " << right_ \
                << std::endl;                                                                                         \
    }                                                                                                                 \
  } while (false)
