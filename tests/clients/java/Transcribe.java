import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** Java's own HttpClient, which asks for HTTP/2 first: java Transcribe.java URL FILE; prints one answer a line. */
public final class Transcribe {
  public static void main(String[] arguments) throws Exception {
    URI url = URI.create(arguments[0] + "/v1/audio/transcriptions");
    byte[] audio = Files.readAllBytes(Path.of(arguments[1]));
    // Its default version is HTTP/2: on a plain connection it sends "Upgrade: h2c" with the request.
    HttpClient client = HttpClient.newHttpClient();
    String boundary = "----java" + System.nanoTime();
    HttpRequest form =
        HttpRequest.newBuilder(url)
            .timeout(Duration.ofMinutes(1))
            .header("Content-Type", "multipart/form-data; boundary=" + boundary)
            .POST(HttpRequest.BodyPublishers.ofByteArray(form(boundary, audio)))
            .build();
    HttpRequest stream =
        HttpRequest.newBuilder(URI.create(url + "?response_format=text"))
            .timeout(Duration.ofMinutes(1))
            .header("Content-Type", "audio/wav")
            // of unknown length: chunked
            .POST(HttpRequest.BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(audio)))
            .build();
    for (HttpRequest request : new HttpRequest[] {form, form, stream}) {
      HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.body().strip());
    }
  }

  private static byte[] form(String boundary, byte[] audio) throws Exception {
    ByteArrayOutputStream body = new ByteArrayOutputStream();
    String file =
        "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"Aufnahme für Müller.wav\""
            + "\r\nContent-Type: audio/wav\r\n\r\n";
    body.write(file.getBytes(StandardCharsets.UTF_8));
    body.write(audio);
    String rest =
        "\r\n--" + boundary + "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--" + boundary
            + "--\r\n";
    body.write(rest.getBytes(StandardCharsets.UTF_8));
    return body.toByteArray();
  }
}
