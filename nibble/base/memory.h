#ifndef NIBBLE_BASE_MEMORY_H_
#define NIBBLE_BASE_MEMORY_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "nibble/base/error.h"

namespace nibble {

// The most memory that was ever resident in this process, from /proc; 0 where that cannot be read.
size_t peak_memory_bytes();
// Counts peak_memory_bytes() from what is resident now on; false where the system does not allow it.
bool reset_peak_memory();

// What processes may still take without swapping, of the machine and of this process's cgroup; 0 where that
// cannot be read.
size_t available_memory_bytes();

// From now on blocks of 1 MiB and more go back to the system when they are freed. glibc's own rule keeps
// blocks of a size that was freed before: loading left holes of decoded weights between packed ones, which
// took 180 MB of 900 (1.1B weights in NF4) and most huge pages. For main(); what was allocated stays as it
// is.
void return_freed_memory();

// "1.3 GB", "540 MB", "12 kB": decimal, as disks and the hub count.
std::string human_bytes(size_t bytes);

// "8GB", "4G", "500MiB", "8000000000"; kInvalidArgument for what is no size.
Expected<size_t> parse_bytes(std::string_view text);

}  // namespace nibble

#endif  // NIBBLE_BASE_MEMORY_H_
