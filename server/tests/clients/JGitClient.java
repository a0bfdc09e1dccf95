import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.List;

import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.lib.Repository;
import org.eclipse.jgit.transport.FilterSpec;
import org.eclipse.jgit.transport.PushResult;
import org.eclipse.jgit.transport.RefSpec;
import org.eclipse.jgit.transport.RemoteRefUpdate;
import org.eclipse.jgit.transport.SshSessionFactory;
import org.eclipse.jgit.transport.sshd.SshdSessionFactoryBuilder;

/** What the tests have JGit do: JGitClient COMMAND ARGUMENTS, as server/tests/it/clients.rs says. */
public final class JGitClient {
    public static void main(String[] args) throws Exception {
        trust(System.getenv("GOVC_TEST_CA"));
        ssh(new File(System.getenv("HOME")));
        switch (args[0]) {
            case "clone":
                Git.cloneRepository().setURI(args[1]).setDirectory(new File(args[2])).call().close();
                break;
            case "shallow":
                Git.cloneRepository()
                    .setURI(args[1])
                    .setDirectory(new File(args[2]))
                    .setDepth(Integer.parseInt(args[3]))
                    .setCloneAllBranches(true)
                    .call()
                    .close();
                break;
            case "partial": {
                FilterSpec filter = FilterSpec.fromFilterLine(args[3]);
                Git.cloneRepository()
                    .setURI(args[1])
                    .setDirectory(new File(args[2]))
                    .setBare(true)
                    .setTransportConfigCallback(transport -> transport.setFilterSpec(filter))
                    .call()
                    .close();
                break;
            }
            case "fetch":
                try (Git git = Git.open(new File(args[1]))) {
                    git.fetch().call();
                }
                break;
            case "deepen":
                try (Git git = Git.open(new File(args[1]))) {
                    git.fetch().setDepth(Integer.parseInt(args[2])).call();
                }
                break;
            case "unshallow":
                try (Git git = Git.open(new File(args[1]))) {
                    git.fetch().setUnshallow(true).call();
                }
                break;
            case "push":
                push(new File(args[1]), Arrays.copyOfRange(args, 2, args.length));
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
        // Threads of the SSH client may still be there.
        System.exit(0);
    }

    private static void push(File directory, String[] refspecs) throws Exception {
        List<RefSpec> specs = Arrays.stream(refspecs).map(RefSpec::new).toList();
        boolean refused = false;
        try (Git git = Git.open(directory)) {
            for (PushResult result : git.push().setRefSpecs(specs).call()) {
                for (RemoteRefUpdate update : result.getRemoteUpdates()) {
                    RemoteRefUpdate.Status status = update.getStatus();
                    if (status != RemoteRefUpdate.Status.OK && status != RemoteRefUpdate.Status.UP_TO_DATE) {
                        System.err.println("refused: " + status + " " + update.getMessage());
                        refused = true;
                    }
                }
            }
        }
        if (refused) {
            System.exit(1);
        }
    }

    /** Trusts the authority in a PEM file alone. */
    private static void trust(String file) throws Exception {
        if (file == null) {
            return;
        }
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = new FileInputStream(file)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
    }

    /** The key and the known hosts of the home. */
    private static void ssh(File home) {
        File folder = new File(home, ".ssh");
        SshSessionFactory.setInstance(new SshdSessionFactoryBuilder()
            .setPreferredAuthentications("publickey")
            .setHomeDirectory(home)
            .setSshDirectory(folder)
            .setDefaultIdentities(any -> List.of(Path.of(folder.getPath(), "id_ed25519")))
            .build(null));
    }
}
