#ifndef NIBBLE_BASE_EMBED_H_
#define NIBBLE_BASE_EMBED_H_

// A file put into the program by the assembler:
//
//   NIBBLE_EMBED(nibble_questions, NIBBLE_QUESTIONS_FILE)   // at file scope; the path is a string literal
//   std::string_view questions = NIBBLE_EMBEDDED(nibble_questions);
//
// Names are global. CMakeLists.txt defines the path and makes the source depend on the file (embed_file).

#include <cstddef>
#include <string_view>

// clang-format off
#define NIBBLE_EMBED(name, path)                  \
  asm(".pushsection .rodata\n"                    \
      ".globl " #name "_begin\n"                  \
      ".globl " #name "_end\n"                    \
      #name "_begin:\n"                           \
      ".incbin \"" path "\"\n"                    \
      #name "_end:\n"                             \
      ".popsection\n");                           \
  extern "C" const char name##_begin[];           \
  extern "C" const char name##_end[]

#define NIBBLE_EMBEDDED(name) \
  std::string_view(name##_begin, static_cast<size_t>(name##_end - name##_begin))
// clang-format on

#endif  // NIBBLE_BASE_EMBED_H_
