#ifndef NIBBLE_REPORT_FIGURE_H_
#define NIBBLE_REPORT_FIGURE_H_

// The pictures of the page. Each comes with the same numbers as a table: for screen readers, for paper,
// and for those who want to copy them.

#include <string>
#include <vector>

#include "nibble/report/report_data.h"

namespace nibble::report {

struct Figure {
  std::string id = {}, title = {}, caption = {};  // text
  bool full_width = false;                        // spans both columns of a wide page
  std::string picture = {};  // markup; empty: nothing was measured, and the page leaves the figure out
  std::vector<std::string> head = {};
  std::vector<std::vector<std::string>> rows = {};  // text; the first cell names the row
};

Figure kl_by_bits(const Report& report);   // with the Pareto front
Figure kl_by_speed(const Report& report);  // with the Pareto front
Figure perplexity_by_size(const Report& report);
Figure kl_percentiles(const Report& report);
Figure memory_bars(const Report& report);
Figure layer_damage(const Report& report);  // one small picture for each candidate

std::string figure_html(const Figure& figure);
// A table that scrolls by itself where it is too wide. Alignment: "l" or "r" for each column; those that
// it does not reach are numbers, "r".
std::string plain_table(const std::string& name, const std::vector<std::string>& head,
                        const std::vector<std::vector<std::string>>& rows, std::string_view alignment = "l");

// A picture is drawn twice: wide for most screens and paper, narrow for phones, so that letters keep
// their size.
struct Layout {
  std::string_view name;
  double width;
  size_t label_columns;  // of the longest name
};
inline constexpr Layout kLayouts[] = {{"wide", 520, 30}, {"narrow", 328, 20}};
inline constexpr Layout kFullWidth = {"full", 1100, 60};  // instead of "wide" where two columns are

}  // namespace nibble::report

#endif  // NIBBLE_REPORT_FIGURE_H_
