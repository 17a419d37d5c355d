#ifndef NIBBLE_TESTS_SUPPORT_SHA256_H_
#define NIBBLE_TESTS_SUPPORT_SHA256_H_

#include "nibble/base/sha256.h"

namespace nibble::test {

using nibble::sha256;

}  // namespace nibble::test

#endif  // NIBBLE_TESTS_SUPPORT_SHA256_H_
