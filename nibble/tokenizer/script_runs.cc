#include "nibble/tokenizer/script_runs.h"

#include <string>
#include <string_view>

namespace nibble {
namespace {

// ISO 15924 codes of the scripts that PCRE2 10.42 knows, without the three that count as Han.
constexpr std::string_view kScripts =
    "Adlm Aghb Ahom Arab Armi Armn Avst Bali Bamu Bass Batk Beng Bhks Bopo Brah Brai Bugi Buhd Cakm "
    "Cans Cari Cham Cher Chrs Copt Cpmn Cprt Cyrl Deva Diak Dogr Dsrt Dupl Egyp Elba Elym Ethi Geor "
    "Glag Gong Gonm Goth Gran Grek Gujr Guru Hang Hano Hatr Hebr Hluw Hmng Hmnp Hung Ital Java Kali "
    "Khar Khmr Khoj Kits Knda Kthi Lana Laoo Latn Lepc Limb Lina Linb Lisu Lyci Lydi Mahj Maka Mand "
    "Mani Marc Medf Mend Merc Mero Miao Mlym Modi Mong Mroo Mtei Mult Mymr Nand Narb Nbat Newa Nkoo "
    "Nshu Ogam Olck Orkh Orya Osge Osma Ougr Palm Pauc Perm Phag Phli Phlp Phnx Plrd Prti Rjng Rohg "
    "Runr Samr Sarb Saur Sgnw Shaw Shrd Sidd Sind Sinh Sogd Sogo Sora Soyo Sund Sylo Syrc Tagb Takr "
    "Tale Talu Taml Tang Tavt Telu Tfng Tglg Thaa Thai Tibt Tirh Tnsa Toto Ugar Vaii Vith Wara Wcho "
    "Xpeo Xsux Yezi Yiii Zanb Zinh Zyyy ";

}  // namespace

Expected<Regex> script_runs() {
  constexpr size_t kCodeSize = 4;
  constexpr std::string_view kAny = R"( \p{Zzzz})";
  std::string pattern = fmt::format(R"([{0}]*+(?:[\p{{Hani}}\p{{Hira}}\p{{Kana}}\x{{30FC}}])"
                                    R"([\p{{Hani}}\p{{Hira}}\p{{Kana}}\x{{30FC}}{0}]*)",
                                    kAny);
  for (size_t i = 0; i + kCodeSize <= kScripts.size(); i += kCodeSize + 1) {
    pattern += fmt::format(R"(|(?! )\p{{{0}}}[\p{{{0}}}{1}]*)", kScripts.substr(i, kCodeSize), kAny);
  }
  pattern += fmt::format(")|[{}]+", kAny);
  return Regex::compile(pattern);
}

}  // namespace nibble
