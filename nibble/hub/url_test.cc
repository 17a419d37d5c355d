#include "nibble/hub/url.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Url, AnOriginIsSchemeHostAndPort) {
  EXPECT_EQ(parse_origin("https://Hub.example/a?b").value(), (Origin{"https", "hub.example", "443"}));
  EXPECT_EQ(parse_origin("http://127.0.0.1:8080").value(), (Origin{"http", "127.0.0.1", "8080"}));
  EXPECT_EQ(parse_origin("https://hub.example:443").value(), parse_origin("https://hub.example/x").value());
  EXPECT_NE(parse_origin("http://hub.example").value(), parse_origin("https://hub.example").value());
  EXPECT_EQ(to_string(parse_origin("https://hub.example:443/x").value()), "https://hub.example");
  EXPECT_EQ(to_string(parse_origin("http://hub.example:443/x").value()), "http://hub.example:443");
  for (const char* bad :
       {"", "hub.example:x", "ftp://hub.example", "file:///etc/passwd", "https://me:pw@hub.example"}) {
    EXPECT_FALSE(parse_origin(bad)) << bad;
  }
}

TEST(Url, ReferencesAreResolved) {
  const std::string base = "https://hub.example/org/name/resolve/main/x?y=1";
  EXPECT_EQ(resolve_url(base, "/api/x").value(), "https://hub.example/api/x");
  EXPECT_EQ(resolve_url(base, "https://cdn.example/z?s=%2F").value(), "https://cdn.example/z?s=%2F");
  EXPECT_EQ(resolve_url(base, "//cdn.example/z").value(), "https://cdn.example/z");
}

TEST(Url, OnlyThisMachineIsLoopback) {
  for (const char* url : {"http://localhost:1", "http://127.0.0.1", "http://127.9.9.9", "http://[::1]:80"}) {
    EXPECT_TRUE(is_loopback(parse_origin(url).value())) << url;
  }
  for (const char* url : {"http://localhost.example", "http://10.0.0.1", "http://hub.example"}) {
    EXPECT_FALSE(is_loopback(parse_origin(url).value())) << url;
  }
}

TEST(Url, PartsOfAPathAreEncoded) {
  EXPECT_EQ(percent_encode("refs/pr/1"), "refs%2Fpr%2F1");
  EXPECT_EQ(percent_encode("a b/ü?.json", /*keep_slashes=*/true), "a%20b/%C3%BC%3F.json");
}

}  // namespace
}  // namespace nibble
