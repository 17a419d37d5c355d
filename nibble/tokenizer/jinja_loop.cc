// The statement `for` and its variable `loop`.

#include "nibble/tokenizer/jinja_interpreter.h"

namespace nibble::jinja {
namespace {

constexpr size_t kStepsPerTurn = 3;  // making its variables costs as much as so many nodes

}  // namespace

// The variable `loop`, and the items that are still to come. The condition of the loop is evaluated
// as late as possible, since the body may change what it depends on.
class Interpreter::Loop : public Object, public std::enable_shared_from_this<Interpreter::Loop> {
 public:
  Loop(Interpreter& interpreter, const Statement& statement, std::shared_ptr<Sequence> source, size_t depth0)
      : interpreter_(interpreter),
        statement_(statement),
        outer_(interpreter.scope_),
        source_(std::move(source)),
        depth0_(depth0) {}

  std::string type_name() const override { return "LoopContext"; }
  bool callable() const override { return true; }

  // Moves to the next item; false at the end.
  Expected<bool> advance() {
    NIBBLE_RETURN_IF_ERROR(peek());
    if (!upcoming_) return false;
    ++count_;
    previous_ = std::move(current_);
    current_ = std::exchange(upcoming_, std::nullopt);
    return true;
  }
  const Value& current() const { return *current_; }
  void forget_changes() { last_changed_.reset(); }

  Expected<std::optional<Value>> attribute(Run& run, std::string_view name) override {
    const size_t index0 = count_ - 1;
    if (name == "index") return found(Value::from_size(count_));
    if (name == "index0") return found(Value::from_size(index0));
    if (name == "first") return found(Value(index0 == 0));
    if (name == "depth") return found(Value::from_size(depth0_ + 1));
    if (name == "depth0") return found(Value::from_size(depth0_));
    if (name == "previtem")
      return found(previous_ ? *previous_ : Value::undefined("there is no previous item"));
    if (name == "cycle" || name == "changed") return found(method(name == "cycle"));
    if (name == "last" || name == "nextitem") {
      NIBBLE_RETURN_IF_ERROR(peek());
      if (name == "last") return found(Value(!upcoming_));
      return found(upcoming_ ? *upcoming_ : Value::undefined("there is no next item"));
    }
    if (name == "length" || name == "revindex" || name == "revindex0") {
      NIBBLE_TRY(const size_t length, total(run));
      return found(Value::from_size(name == "length"     ? length
                                    : name == "revindex" ? length - index0
                                                         : length - count_));
    }
    return std::optional<Value>();
  }

  Expected<Value> call(Run&, CallArguments arguments) override {
    if (!statement_.recursive) {
      return raise("The loop must have the 'recursive' marker to be called recursively.");
    }
    if (arguments.positional.size() != 1 || !arguments.named.empty())
      return raise("loop() takes one argument");
    const Restore<ScopePtr> scope(interpreter_.scope_, outer_);
    return interpreter_.recurse(statement_, arguments.positional[0], depth0_ + 1);
  }

 private:
  class Method;

  static std::optional<Value> found(Value value) { return std::optional<Value>(std::move(value)); }

  Value method(bool cycle);

  // Looks for the next item that passes the condition.
  Status peek() {
    while (!upcoming_ && next_ < source_->items.size()) {
      Value item = source_->items[next_++];
      NIBBLE_TRY(const bool passes, passes_condition(item));
      if (passes) upcoming_ = std::move(item);
    }
    return {};
  }

  Expected<bool> passes_condition(const Value& item) {
    const ExprPtr& condition = statement_.exprs[1];
    if (!condition || filtered_) return true;
    const Restore<ScopePtr> scope(interpreter_.scope_, interpreter_.inner_scope(outer_));
    NIBBLE_RETURN_IF_ERROR(interpreter_.assign(statement_.targets[0], item));
    NIBBLE_TRY(const Value passes, interpreter_.evaluate(*condition));
    return is_true(passes);
  }

  // The number of all items, which evaluates the condition for those to come.
  Expected<size_t> total(Run& run) {
    if (statement_.exprs[1] && !filtered_) {
      std::vector<Value> rest;
      if (upcoming_) rest.push_back(*std::exchange(upcoming_, std::nullopt));
      while (next_ < source_->items.size()) {
        const Value& item = source_->items[next_++];
        NIBBLE_TRY(const bool passes, passes_condition(item));
        if (passes) rest.push_back(item);
      }
      NIBBLE_TRY(const Value made, run.budget.sequence(std::move(rest)));
      source_ = made.shared_sequence();
      next_ = 0;
      filtered_ = true;
      length_ = count_ + source_->items.size();
    }
    return length_ ? *length_ : source_->items.size();
  }

  Interpreter& interpreter_;
  const Statement& statement_;
  const ScopePtr outer_;
  std::shared_ptr<Sequence> source_;
  const size_t depth0_;
  size_t next_ = 0;   // in source_
  size_t count_ = 0;  // items so far
  bool filtered_ = false;
  std::optional<size_t> length_;
  std::optional<Value> previous_;
  std::optional<Value> current_;
  std::optional<Value> upcoming_;
  std::optional<Value> last_changed_;
};

// loop.cycle(...) and loop.changed(...).
class Interpreter::Loop::Method : public Object {
 public:
  Method(std::shared_ptr<Loop> loop, bool cycle) : loop_(std::move(loop)), cycle_(cycle) {}
  std::string type_name() const override { return "method"; }
  Expected<Value> call(Run& run, CallArguments arguments) override {
    if (!arguments.named.empty()) return raise("cycle and changed take no keyword arguments");
    auto& values = arguments.positional;
    if (cycle_) {
      if (values.empty()) return raise("no items for cycling given");
      return values[(loop_->count_ - 1) % values.size()];
    }
    NIBBLE_TRY(const Value tuple, run.budget.sequence(std::move(values), SequenceType::kTuple));
    std::optional<Value>& last = loop_->last_changed_;
    if (!last) loop_->interpreter_.changing_.push_back(loop_);
    const bool changed = !last || !equal(run.budget, *last, tuple);
    last = tuple;
    return Value(changed);
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const bool cycle_;
};

Value Interpreter::Loop::method(bool cycle) {
  return Value(std::shared_ptr<Object>(std::make_shared<Method>(shared_from_this(), cycle)));
}

void Interpreter::forget_changes() {
  for (const auto& loop : changing_) loop->forget_changes();
}

Expected<Flow> Interpreter::execute_for(const Statement& statement) {
  NIBBLE_TRY(const Value items, evaluate(*statement.exprs[0]));
  if (!statement.recursive) return run_loop(statement, items, 0);
  NIBBLE_TRY(const Value printed, recurse(statement, items, 0));
  NIBBLE_RETURN_IF_ERROR(print(*printed.text()));
  return Flow::kNext;
}

Expected<Value> Interpreter::recurse(const Statement& statement, const Value& items, size_t depth0) {
  Text saved = std::exchange(out_, Text());
  const Expected<Flow> flow = run_loop(statement, items, depth0);
  Text printed = std::exchange(out_, std::move(saved));
  if (!flow) return Failure(flow.error());
  return run_.budget.text(std::move(printed));
}

Expected<Flow> Interpreter::run_loop(const Statement& statement, const Value& items, size_t depth0) {
  NIBBLE_TRY(auto source, to_sequence(run_.budget, items));
  const auto loop = std::make_shared<Loop>(*this, statement, std::move(source), depth0);
  const Value loop_value{std::shared_ptr<Object>(loop)};
  // As in Jinja, `else` also runs if every turn was cut short by break or continue.
  bool any_complete = false;
  while (true) {
    NIBBLE_TRY(const bool more, loop->advance());
    if (!more) break;
    run_.budget.use(kStepsPerTurn);
    const Restore<ScopePtr> scope(scope_, inner_scope(scope_));
    scope_->set("loop", loop_value);
    NIBBLE_RETURN_IF_ERROR(assign(statement.targets[0], loop->current()));
    NIBBLE_TRY(const Flow flow, execute(statement.body));
    if (flow == Flow::kBreak) break;
    any_complete = any_complete || flow == Flow::kNext;
  }
  if (any_complete) return Flow::kNext;
  const Restore<ScopePtr> scope(scope_, inner_scope(scope_));
  return execute(statement.otherwise);
}

}  // namespace nibble::jinja
