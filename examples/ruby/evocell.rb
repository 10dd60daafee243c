# frozen_string_literal: true

# A client of `evocell serve`, written from docs/pipe.md alone. Needs the gem `msgpack` (Debian: `ruby-msgpack`).
require "msgpack"

# One connection. Every method of the engine is a method here, with its arguments under their names:
# `engine.run(sandbox: "a", entry: "f", args: [1])`. Functions may stand wherever the protocol takes one.
class Evocell
  PROTOCOL = 1
  # What the server's answer says went wrong: `code` names it, `data` has the particulars.
  class Error < StandardError
    attr_reader :code, :data

    def initialize(error)
      @code, @data = error.values_at("code", "data")
      super(error["message"])
    end
  end

  # A request under way.
  class Request
    attr_reader :msgid, :parts

    def initialize(engine, msgid, &on_part)
      @engine, @msgid, @on_part, @answer, @parts = engine, msgid, on_part, Queue.new, []
    end

    # Waits for the answer. An answer with an error is raised.
    def value
      error, result = (@outcome ||= @answer.pop)
      raise Error.new(error) if error

      result.is_a?(Hash) && result.keys == ["parts"] ? @parts : result
    end

    # Withdraws it; `value` raises RequestCancelled then, unless it was finished already.
    def cancel = @engine.notify("cancel", msgid: @msgid)

    def part(value) = (@on_part || @parts.method(:<<)).call(value)

    def answer(error, result) = @answer.push([error, result])
  end

  # The answer to `hello`.
  attr_reader :hello

  # Starts a server as a child, or takes `io`, a socket of one that runs. The block is called with each notification
  # that belongs to no request: `image.progress`, `event` and such.
  def initialize(command: %w[evocell serve], io: nil, hello: {}, &on_notification)
    @io = io || IO.popen(command, "r+b")
    @io.sync = true
    @on_notification = on_notification
    @writing = Mutex.new
    @open = {} # msgid => Request
    @lent = {} # name => Proc
    @last_msgid = -1
    @last_function = 0
    @types = MessagePack::Factory.new
    @types.register_type(1, Class.new, packer: nil, unpacker: ->(bytes) { unbig(bytes) })
    @types.register_type(8, Complex, packer: ->(c) { c.rect.pack("EE") }, unpacker: ->(bytes) { Complex(*bytes.unpack("EE")) })
    @reader = Thread.new { read }
    @hello = request("hello", protocol: PROTOCOL, client: "evocell.rb 1", **hello).value
  end

  # Sends a request and returns it at once. The block gets the parts of one that streams.
  def request(method, **params, &on_part)
    names = []
    params = lend(params, names)
    request = @writing.synchronize do
      raise Error.new(closing) if @over

      Request.new(self, @last_msgid += 1, &on_part).tap { |new| @open[new.msgid] = [new, names] }
    end
    send_message([0, request.msgid, method, [params]])
    request
  end

  def notify(method, **params) = send_message([2, method, [params]])

  def respond_to_missing?(name, _private = false) = name.match?(/\A(?!to_)[a-z_]+\z/)

  def method_missing(name, **params, &on_part)
    respond_to_missing?(name) ? request(name.to_s, **params, &on_part).value : super
  end

  def freeze(**params) = params.empty? ? super() : request("freeze", **params).value

  # Why the connection is over.
  def closing = @closing || failure("ConnectionClosed", "the server closed the connection")

  # Closes the connection; the session and its sandboxes end with it.
  def close
    @io.close_write
    @reader.join
    @io.close
  end

  private

  def send_message(message)
    bytes = @types.dump(message)
    @writing.synchronize { @io.write(bytes) }
  rescue IOError, SystemCallError
    @reader.join # the server's reason may still be there to be read
    raise Error.new(closing)
  end

  # Puts `{"function": name}` in the place of every function.
  def lend(value, names)
    case value
    when Proc, Method
      names << (name = "f#{@writing.synchronize { @last_function += 1 }}")
      @lent[name] = value
      { "function" => name }
    when Hash then value.transform_values { |item| lend(item, names) }
    when Array then value.map { |item| lend(item, names) }
    when Integer then value.bit_length > 63 ? MessagePack::ExtensionValue.new(1, big(value)) : value
    else value
    end
  end

  def read
    @types.unpacker(@io).each { |message| received(message) }
  rescue IOError, SystemCallError, MessagePack::UnpackError => error
    @closing ||= failure("ConnectionClosed", error.message)
  ensure
    gone = @writing.synchronize { @over = true && @open.values.tap { @open = {} } }
    gone.each { |request, _| request.answer(closing, nil) }
  end

  def received(message)
    case message
    in [0, msgid, "call", [asked]] then Thread.new { answer(msgid, *asked.values_at("function", "args")) }
    in [0, msgid, method, _] then send_message([1, msgid, failure("MethodNotFound", "no method #{method}"), nil])
    in [1, msgid, error, result] then answered(msgid, error, result)
    in [2, "part", [part]] then @open[part["msgid"]][0].part(part["part"])
    in [2, "call", [told]] then @lent[told["function"]]&.call(*told["args"])
    in [2, "cancel", _] then nil # the call is answered all the same
    in [2, "closing", [reason]] then @closing = reason
    in [2, method, [params]] then @on_notification&.call(method, params)
    end
  end

  def answered(msgid, error, result)
    request, names = @writing.synchronize { @open.delete(msgid) }
    names.each { |name| @lent.delete(name) }
    request.answer(error, result)
  end

  # Calls a function for the server, and tells it what came of it.
  def answer(msgid, name, args)
    function = @lent[name] or return send_message([1, msgid, failure("MethodNotFound", "no function #{name}"), nil])
    result = function.call(*args)
    send_message([1, msgid, nil, result])
  rescue StandardError => error
    send_message([1, msgid, failure(error.class.name, error.message), nil])
  end

  def failure(code, message) = { "code" => code, "message" => message, "data" => {} }

  # Two's complement, big-endian.
  def big(number)
    size = number.bit_length / 8 + 1
    [format("%0#{size * 2}x", number % (1 << size * 8))].pack("H*")
  end

  def unbig(bytes)
    number = bytes.unpack1("H*").to_i(16)
    number >= 1 << bytes.bytesize * 8 - 1 ? number - (1 << bytes.bytesize * 8) : number
  end
end
