# Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks.
require "socket"
require_relative "verify"

SECRET = ENV.fetch("WEBHOOK_SECRET")

# The part of Rack's environment that comes from headers, and the body; nil at the connection's end.
def read_request(connection)
  return unless connection.gets("\r\n")

  env = {}
  while (line = connection.gets("\r\n").chomp("\r\n")) != ""
    name, value = line.split(":", 2)
    env["HTTP_#{name.upcase.tr("-", "_")}"] = value.strip
  end
  [env, connection.read(env["HTTP_CONTENT_LENGTH"].to_i)]
end

server = TCPServer.new("127.0.0.1", ENV.fetch("PORT"))
loop do
  connection = server.accept
  while (env, body = read_request(connection))
    answer = "#{Webhooks.body_ok?(SECRET, env, body)} #{Webhooks.standard_ok?(SECRET, env, body)}"
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: #{answer.bytesize}\r\n\r\n#{answer}")
  end
end
