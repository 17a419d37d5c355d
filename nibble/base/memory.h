#ifndef NIBBLE_BASE_MEMORY_H_
#define NIBBLE_BASE_MEMORY_H_

#include <cstddef>
#include <string>

namespace nibble {

// The most memory that was ever resident in this process, from /proc; 0 where that cannot be read.
size_t peak_memory_bytes();

// "1.3 GB", "540 MB", "12 kB": decimal, as disks and the hub count.
std::string human_bytes(size_t bytes);

}  // namespace nibble

#endif  // NIBBLE_BASE_MEMORY_H_
