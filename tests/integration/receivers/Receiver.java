import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.function.Function;

/** Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks. */
class Receiver {
    public static void main(String[] args) throws Exception {
        String secret = System.getenv("WEBHOOK_SECRET");
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            Function<String, String> header = exchange.getRequestHeaders()::getFirst;
            boolean bodyOk = Webhooks.bodyOk(secret, header, body);
            byte[] answer = (bodyOk + " " + Webhooks.standardOk(secret, header, body, 300)).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
