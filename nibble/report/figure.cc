#include "nibble/report/figure.h"

#include <fmt/format.h>

#include "nibble/report/text.h"

namespace nibble::report {

std::string plain_table(const std::string& name, const std::vector<std::string>& head,
                        const std::vector<std::vector<std::string>>& rows, std::string_view alignment) {
  const auto css_class = [&](size_t column) {
    return column < alignment.size() && alignment[column] == 'l' ? R"( class="words")" : "";
  };
  std::string out = fmt::format(
      R"(<div class="scroll" role="region" tabindex="0" aria-label="{0}"><table><caption class="sr">{0}</caption><thead><tr>)",
      escape_html(name));
  for (size_t i = 0; i < head.size(); ++i) {
    out += head[i].empty()
               ? "<td></td>"
               : fmt::format(R"(<th scope="col"{}><bdi>{}</bdi></th>)", css_class(i), escape_html(head[i]));
  }
  out += "</tr></thead><tbody>";
  for (const auto& row : rows) {
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      const char* const tag = i == 0 ? "th scope=\"row\"" : "td";
      out += fmt::format("<{}{}><bdi>{}</bdi></{}>", tag, css_class(i), escape_html(row[i]),
                         i == 0 ? "th" : "td");
    }
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

std::string figure_html(const Figure& figure) {
  if (figure.picture.empty()) return {};
  return fmt::format(
      R"(<figure id="{0}"{5}><figcaption><h3>{1}</h3><p>{2}</p></figcaption>{3}<p class="detail" aria-hidden="true"></p>)"
      R"(<details class="numbers"><summary>The numbers<span class="sr"> of “{1}”</span></summary>{4}</details></figure>)"
      "\n",
      figure.id, escape_html(figure.title), escape_html(figure.caption), figure.picture,
      plain_table(figure.title, figure.head, figure.rows), figure.full_width ? " class=\"full-width\"" : "");
}

}  // namespace nibble::report
