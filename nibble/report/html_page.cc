// The page as a whole.

#include <array>

#include "nibble/base/sha256.h"
#include "nibble/report/assets.h"
#include "nibble/report/figure.h"
#include "nibble/report/html_sections.h"
#include "nibble/report/numbers.h"
#include "nibble/report/report.h"
#include "nibble/report/report_data.h"
#include "nibble/report/text.h"

namespace nibble {
namespace {

using report::escape_html;
using report::Report;

// Hexadecimal digits as base64 (RFC 4648).
std::string base64_of_hex(std::string_view hex) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned bits = 0;
  int count = 0;  // of bits that wait
  for (const char c : hex) {
    bits = bits << 4 | static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
    count += 4;
    if (count < 6) continue;
    count -= 6;
    out += kDigits[bits >> count & 63];
  }
  if (count > 0) out += kDigits[bits << (6 - count) & 63];
  while (out.size() % 4 != 0) out += '=';
  return out;
}

// Nothing may be fetched, and nothing runs but the one script, even if a name slipped through unescaped.
std::string content_security_policy() {
  const auto hash = [](std::string_view text) { return "'sha256-" + base64_of_hex(sha256(text)) + "'"; };
  return fmt::format(
      "default-src 'none'; style-src {}; script-src {}; img-src data:; base-uri 'none'; form-action 'none'",
      hash(report::style_css()), hash(report::script_js()));
}

constexpr std::string_view kIcon =
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath "
    "fill='%230f6b5c' "
    "d='M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z'/%3E%3C/svg%3E";

std::string head(const Report& report) {
  const std::string name = report.model_name.empty() ? "Comparison" : report.model_name;
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta name=\"referrer\" content=\"no-referrer\">\n"
      "<title>{}: which quantization? Nibble</title>\n<link rel=\"icon\" "
      "href=\"{}\">\n<style>{}</style>\n</head>\n",
      content_security_policy(), escape_html(report::one_line(name)), kIcon, report::style_css());
}

// "2026-11-28T17:40:00Z" as "28 November 2026"; anything else as it is.
std::string day_of(const std::string& created) {
  constexpr std::array kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                  "July",    "August",   "September", "October", "November", "December"};
  const auto digits = [&](size_t at, size_t count) {
    int value = 0;
    for (size_t i = at; i < at + count; ++i) {
      if (created[i] < '0' || created[i] > '9') return -1;
      value = 10 * value + (created[i] - '0');
    }
    return value;
  };
  if (created.size() < 10 || created[4] != '-' || created[7] != '-') return created;
  const int year = digits(0, 4), month = digits(5, 2), day = digits(8, 2);
  if (year < 0 || day < 1 || month < 1 || month > 12) return created;
  return fmt::format("{} {} {}", day, kMonths[static_cast<size_t>(month - 1)], year);
}

std::string subtitle(const Report& report) {
  const size_t count = report.candidates.size();
  std::string out = fmt::format("{} candidate{} measured", count, count == 1 ? "" : "s");
  if (report::is_known(report.tokens)) {
    out += fmt::format(" on {} tokens", report::format_count(report.tokens));
    if (!report.text_name.empty()) out += fmt::format(" of {}", report.text_name);
  }
  if (!report.machine.empty() && report.machine[0].first == "Processor") {
    out += fmt::format(", {}", report.machine[0].second);
  }
  if (!report.created.empty()) out += fmt::format(", {}", day_of(report.created));
  return out + ".";
}

std::string page_header(const Report& report) {
  std::string notes;
  for (const std::string& note : report.model_notes) {
    notes += fmt::format("<p class=\"caution\" dir=\"auto\">{}</p>\n", escape_html(note));
  }
  return fmt::format(
      "<a class=\"skip\" href=\"#main\">Skip to the verdict</a>\n<header>\n"
      "<p class=\"brand\"><span aria-hidden=\"true\"><i></i><i></i><i></i><i></i></span>Nibble · which "
      "quantization?"
      "<button id=\"theme\" type=\"button\" hidden>Theme: auto</button></p>\n"
      "<h1 dir=\"auto\">{}</h1>\n<p class=\"subtitle\">{}</p>\n{}</header>\n",
      escape_html(report.model_name.empty() ? "Comparison" : report.model_name),
      escape_html(subtitle(report)), notes);
}

std::string pictures(const Report& report) {
  std::string out = figure_html(report::kl_by_bits(report)) + figure_html(report::kl_by_speed(report)) +
                    figure_html(report::perplexity_by_size(report)) +
                    figure_html(report::memory_bars(report)) + figure_html(report::kl_percentiles(report));
  return out.empty() ? out : fmt::format("<div class=\"figures\">\n{}</div>", out);
}

std::string page_footer(const Report& report) {
  return fmt::format(
      "<footer><p>Made by Nibble {}{}{}. This page is one file: it loads nothing and sends nothing.</p>"
      "</footer>\n",
      escape_html(report.nibble), report.created.empty() ? "" : " on ", escape_html(report.created));
}

}  // namespace

std::string render_html(const Json& json) {
  const Report report = report::read_report(json);
  return head(report) + "<body>\n" + page_header(report) + "<main id=\"main\" tabindex=\"-1\">\n" +
         report::verdict_section(report) +
         report::section("pictures", "Quality, size and speed", pictures(report)) +
         report::section("damage", "Where the damage is", figure_html(report::layer_damage(report))) +
         report::table_section(report) + report::pairs_section(report) + report::samples_section(report) +
         report::repeat_section(report) + "</main>\n" + page_footer(report) + "<script>" +
         std::string(report::script_js()) + "</script>\n</body>\n</html>\n";
}

}  // namespace nibble
