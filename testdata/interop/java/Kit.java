import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;

/** What the Java scenarios rest on: the records that every client produces, the manifests, checks and processes. */
final class Kit {
    static final String BOOTSTRAP = env("BOOTSTRAP", "127.0.0.1:9092");
    static final short NODES = Short.parseShort(env("NODES", "1")); // brokers, and replicas of each partition
    static final int SESSION_MS = 6000; // the shortest session timeout that a broker allows by default
    private static final long DEADLINE = System.nanoTime() + 1_000_000_000L * Integer.parseInt(env("SCENARIO_SECONDS", "50"));
    private static final ObjectMapper JSON = new ObjectMapper();

    record Header(String key, byte[] value) {}

    /** A record as produced and compared; null is null, which an empty array is not. */
    record Rec(byte[] key, byte[] value, List<Header> headers, long timestamp) {
        boolean same(Rec o) {
            if (!Arrays.equals(key, o.key) || !Arrays.equals(value, o.value) || timestamp != o.timestamp || headers.size() != o.headers.size()) return false;
            for (int i = 0; i < headers.size(); i++) {
                Header a = headers.get(i), b = o.headers.get(i);
                if (!a.key.equals(b.key) || !Arrays.equals(a.value, b.value)) return false;
            }
            return true;
        }
    }

    interface Reader { List<Rec> read(String topic, int n) throws Exception; }

    static String topic(String name) { return "java-" + name + "-" + env("RUN", "0"); }

    static String numbered(int i) { return String.format("%06d", i); }

    static void check(boolean ok, String what) {
        if (!ok) throw new AssertionError(what);
    }

    static void checkDeadline(String what) { check(System.nanoTime() < DEADLINE, "deadline: " + what); }

    static void eventually(String what, Callable<Boolean> ok, Runnable step) throws Exception {
        while (!ok.call()) {
            checkDeadline("never happened: " + what);
            step.run();
        }
        System.out.println("reached: " + what);
    }

    static void eventually(String what, Callable<Boolean> ok) throws Exception { eventually(what, ok, () -> sleep(50)); }

    static void sleep(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    static void inOrder(List<String> values, int n) {
        for (int i = 0; i < values.size(); i++) check(values.get(i).equals(numbered(i)), "offset " + i + " holds " + values.get(i) + " of " + values.size());
        check(values.size() == n, values.size() + " records, want " + n);
    }

    /** The shared records in order. Without nullHeaders a null value of a header is an empty one. */
    static List<Rec> records(long firstTimestamp, boolean nullHeaders) throws Exception {
        List<Rec> out = new ArrayList<>();
        for (JsonNode r : JSON.readTree(new File(env("RECORDS", "records.json")))) {
            byte[] value = decode(r.get("value"));
            if (r.has("repeat")) {
                byte[] once = value;
                value = new byte[once.length * r.get("repeat").asInt()];
                for (int i = 0; i < value.length; i += once.length) System.arraycopy(once, 0, value, i, once.length);
            }
            List<Header> headers = new ArrayList<>();
            if (r.has("headers")) {
                for (JsonNode h : r.get("headers")) {
                    byte[] v = decode(h.get(1));
                    headers.add(new Header(h.get(0).asText(), v == null && !nullHeaders ? new byte[0] : v));
                }
            }
            out.add(new Rec(decode(r.get("key")), value, headers, firstTimestamp + out.size()));
        }
        return out;
    }

    static void writeManifest(String topic, List<String> codecs, long firstTimestamp) throws Exception {
        JSON.writeValue(new File(env("WORK", "."), "manifest-java.json"),
            Map.of("topic", topic, "codecs", codecs, "firstTimestamp", firstTimestamp, "nullHeaders", true));
    }

    /** Compares every topic of the run with its manifest. */
    static void readAll(Reader reader) throws Exception {
        File[] files = Objects.requireNonNull(new File(env("WORK", ".")).listFiles((d, n) -> n.matches("manifest-.*\\.json")));
        check(files.length > 0, "no manifests: run produce-codecs first");
        for (File f : files) {
            JsonNode m = JSON.readTree(f);
            String topic = m.get("topic").asText();
            List<Rec> want = new ArrayList<>();
            for (int i = 0; i < m.get("codecs").size(); i++) want.addAll(records(m.get("firstTimestamp").asLong(), m.get("nullHeaders").asBoolean()));
            List<Rec> got = reader.read(topic, want.size());
            for (int i = 0; i < want.size(); i++) check(got.get(i).same(want.get(i)), topic + " offset " + i + " differs");
            System.out.println(topic + ": " + got.size() + " records are the same");
        }
    }

    /** Begins to kill the broker and start it again on the same data and port. */
    static Process startRestart() throws Exception { return start("sh", "-c", env("RESTART_CMD", "false")); }

    /** This program as a group member in a process of its own. */
    static Process startMember(String topic, String group) throws Exception {
        return start(Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-XX:TieredStopAtLevel=1", "-cp",
            System.getProperty("java.class.path"), "Interop", "member", topic, group);
    }

    static void kill(Process member) throws Exception {
        System.out.println("kill -9 of the second member");
        member.destroyForcibly().waitFor();
    }

    private static Process start(String... command) throws Exception { return new ProcessBuilder(command).inheritIO().start(); }

    private static byte[] decode(JsonNode n) { return n.isNull() ? null : Base64.getDecoder().decode(n.asText()); }

    private static String env(String name, String fallback) { return System.getenv().getOrDefault(name, fallback); }
}
