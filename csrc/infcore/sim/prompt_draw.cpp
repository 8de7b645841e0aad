#include <infcore/sim/prompt_draw.hpp>

#include <algorithm>

namespace infcore::sim {

PromptDraw::PromptDraw(const WorkloadConfig& config, std::uint32_t index, base::Draw draw)
    : prompts_(config.prompt_tokens),
      outputs_(config.output_tokens),
      prefix_(config.prefix),
      context_tokens_max_(config.context_tokens_max),
      tag_(std::uint64_t{index + 1} << 40),
      draw_(draw) {
  if (context_tokens_max_ == 0) return;
  double sum = 0.0;
  for (std::uint32_t rank = 1; rank <= prefix_.groups; ++rank) {
    sum += base::exp(-prefix_.zipf * base::log(static_cast<double>(rank)));
    popularity_.push_back(sum);
  }
}

/// At least one.
std::uint32_t PromptDraw::tokens(const WorkDraw& dist) noexcept {
  const double drawn = std::min(dist.draw(draw_), static_cast<double>(context_tokens_max_));
  return std::max<std::uint32_t>(1, static_cast<std::uint32_t>(drawn + 0.5));
}

std::uint32_t PromptDraw::draw_group() noexcept {
  const double at = draw_.uniform() * popularity_.back();
  const auto found = std::upper_bound(popularity_.begin(), popularity_.end() - 1, at);
  return static_cast<std::uint32_t>(found - popularity_.begin());
}

TokenWork PromptDraw::begin() noexcept {
  TokenWork work;
  work.prompt = tokens(prompts_);
  work.output = std::min(tokens(outputs_), context_tokens_max_ - 1);
  work.prompt = std::min(work.prompt, context_tokens_max_ - work.output);
  work.content = tag_ | ++n_contents_;
  if (prefix_.groups == 0) return work;
  work.group = ~(tag_ | draw_group());  // never a content's name
  const double shared = prefix_.share > 0.0 ? prefix_.share * work.prompt : prefix_.tokens;
  work.shared = std::min(work.prompt, static_cast<std::uint32_t>(shared));
  work.known = work.shared;
  return work;
}

TokenWork PromptDraw::follow(const TokenWork& before) noexcept {
  TokenWork work = begin();
  const std::uint64_t prompt = std::uint64_t{before.prompt} + before.output + work.prompt;
  if (prompt + work.output > context_tokens_max_) return work;
  work.known = before.prompt + before.output;
  work.prompt = static_cast<std::uint32_t>(prompt);
  work.content = before.content;
  work.group = before.group;
  work.shared = before.shared;
  return work;
}

}  // namespace infcore::sim
