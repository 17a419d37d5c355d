#include "nibble/base/sha256.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

// The examples of FIPS 180-4, and both sides of the padding's edges.
TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(std::string(55, 'a')), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(sha256(std::string(56, 'a')), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(sha256(std::string(64, 'a')), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PartsOfAnySizeGiveTheDigestOfTheWhole) {
  std::string text;
  for (int k = 0; k < 300; ++k) text += static_cast<char>(k * 7);
  for (size_t part = 1; part <= text.size(); ++part) {
    Sha256 digest;
    for (size_t i = 0; i < text.size(); i += part) digest.update(std::string_view(text).substr(i, part));
    EXPECT_EQ(digest.finish(), sha256(text)) << part;
  }
}

TEST(Sha256, FinishBeginsAnew) {
  Sha256 digest;
  digest.update("something");
  digest.finish();
  digest.update("abc");
  EXPECT_EQ(digest.finish(), sha256("abc"));
}

}  // namespace
}  // namespace nibble
