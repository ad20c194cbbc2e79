# The same as client.py on Ruby's net/http.

require "net/http"
require "openssl"

settings = ARGV.to_h { |word| word.split("=", 2) }
Thread.abort_on_exception = true

talk = lambda do |number|
  http = Net::HTTP.new(settings["host"], settings["port"].to_i)
  http.use_ssl = true
  http.ca_file = settings["ca"]
  http.start do
    settings["requests"].to_i.times do
      response = http.get("/", { "Host" => "n#{number}.test" })
      raise response.code unless response.code == "200"
    end
  end
end

Array.new(settings["connections"].to_i) { |number| Thread.new { talk.call(number) } }.each(&:join)
