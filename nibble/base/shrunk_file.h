#ifndef NIBBLE_BASE_SHRUNK_FILE_H_
#define NIBBLE_BASE_SHRUNK_FILE_H_

// A file that another process shortens while it is mapped: touching the bytes that are gone raises SIGBUS.
// The program turns that into an error message and exit status 1; MappedFile::check_size() finds out earlier,
// as an Error, wherever a tensor is asked for.

#include <cstddef>
#include <span>

namespace nibble {

// For MappedFile: which addresses are a file's. `path` must live as long as the mapping.
void add_mapping(std::span<const std::byte> bytes, const char* path);
void remove_mapping(std::span<const std::byte> bytes);

// SIGBUS; called once, by main. A SIGBUS anywhere else still is the crash it was.
void install_shrunk_file_handler();

}  // namespace nibble

#endif  // NIBBLE_BASE_SHRUNK_FILE_H_
