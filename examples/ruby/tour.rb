# frozen_string_literal: true

# What a client of `evocell serve` can do, one thing after the other.
#
#   ruby tour.rb                              # with `evocell` on the PATH
#   EVOCELL=../../.venv/bin/evocell ruby tour.rb
require_relative "evocell"

SOURCE = <<~PYTHON
  total = 0

  def add(n):
      global total
      total += n
      return total

  def spin():
      while True: pass
PYTHON

def failing
  yield
rescue Evocell::Error => error
  "#{error.code}: #{error.message}"
end

births = 0
told = lambda do |name, params|
  births += 1 if name == "event" && params["name"] == "sandbox.create.stop"
  puts format("image: %s, %d %%", params["step"], 100 * params["fraction"]) if name == "image.progress"
end
engine = Evocell.new(command: [ENV.fetch("EVOCELL", "evocell"), "serve", "--workers", "1"], &told)
puts "#{engine.hello["server"]} speaks protocol #{engine.hello["protocol"]}"

engine.subscribe(prefix: "sandbox.create")
engine.create_sandbox(id: "adder", source: SOURCE)
engine.run(sandbox: "adder", entry: "add", args: [2])
puts "state is kept: 2 + 3 = #{engine.run(sandbox: "adder", entry: "add", args: [3])["value"]}"
puts "beyond 64 bits: #{engine.run(sandbox: "adder", entry: "add", args: [2**70])["value"] - 2**70}"

# The expected answers never leave this process: the server asks with the number of a case and what came back.
expected = [1, 4, 9]
evaluation = { entry: "solve", cases: [1, 2, 3].map { |x| { args: [x] } }, limits: { fuel: 10**8 },
               failure: -1e9, score: ->(index, value) { -(value - expected[index]).abs } }
programs = { "double" => "return 2 * x", "square" => "return x * x", "loop" => "return sum(iter(int, 1))", "typo" => "retrun x" }
ids = engine.batch_create(specs: programs.map { |name, line| { id: name, source: "def solve(x): #{line}" } })
engine.batch_evaluate(sandboxes: ids, fitness: evaluation).each do |result|
  puts "#{result["sandbox_id"]}: #{result["error"] || result["fitness_score"]}"
end
asking = ->(id) { engine.run(sandbox: id, entry: "solve", args: [3], isolation: "call")["value"] }
results = engine.batch_evaluate(sandboxes: %w[double square], fitness: asking)
puts "asked by a function of ours: #{results.map { |result| result["fitness_score"] }}"
sources = ["def solve(x): return x", "def solve(x): return x * x"]
scores = engine.as_completed(sources:, evaluation:).sort.map { |_, result| result["fitness_score"] }
puts "handed out one by one: #{scores.map { |score| score.round(2) }}"
puts "#{births} sandboxes were created"

puts failing { engine.run(sandbox: "nobody", entry: "add") }
puts failing { engine.run(sandbox: "adder", entri: "add") }
puts failing { engine.request("run", sandbox: "adder", entry: "spin").tap(&:cancel).value }

# More requests than the server takes at once: the rest is refused, and nothing is lost.
most = engine.hello["limits"]["max_in_flight"]
requests = Array.new(most + 10) { engine.request("run", sandbox: "adder", entry: "spin") }
puts requests.last(10).map { |request| failing { request.value } }.uniq
requests.first(most).each(&:cancel)
puts requests.first(most).map { |request| failing { request.value } }.tally

puts failing { engine.run(sandbox: "adder", entry: "add", args: ["x" * engine.hello["limits"]["max_frame_bytes"]]) }
puts failing { engine.ping }
engine.close
puts "the server has ended with #{$?.exitstatus}"
