#ifndef NIBBLE_BASE_CHECK_H_
#define NIBBLE_BASE_CHECK_H_

// NIBBLE_CHECK(condition): for broken invariants, that is bugs. Prints and aborts.
// No input may ever reach one; input errors are values (error.h).

#include <cstdio>
#include <cstdlib>

#define NIBBLE_CHECK(condition)                                                               \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      std::fprintf(stderr, "%s:%d: bug: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                           \
    }                                                                                         \
  } while (false)

#endif  // NIBBLE_BASE_CHECK_H_
