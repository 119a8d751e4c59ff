using System;
using System.IO;
using System.Net;
using System.Text;

// Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks.
class Receiver
{
    static void Main()
    {
        var secret = Environment.GetEnvironmentVariable("WEBHOOK_SECRET");
        var listener = new HttpListener();
        listener.Prefixes.Add("http://127.0.0.1:" + Environment.GetEnvironmentVariable("PORT") + "/");
        listener.Start();
        while (true)
        {
            var context = listener.GetContext();
            var stream = new MemoryStream();
            context.Request.InputStream.CopyTo(stream);
            var body = stream.ToArray();
            Func<string, string> header = name => context.Request.Headers[name];
            var verdicts = Webhooks.BodyOk(secret, header, body) + " " + Webhooks.StandardOk(secret, header, body);
            var answer = Encoding.ASCII.GetBytes(verdicts.ToLowerInvariant());
            context.Response.Close(answer, true);
        }
    }
}
