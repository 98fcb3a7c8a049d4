# A template: scripts/release fills in what is between @ signs.
class Visitas < Formula
  desc "Visit counter: a 200 is one committed row, counted exactly once"
  homepage "@SOURCE@"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on :linux

  on_intel do
    url "@SOURCE@/releases/download/v@VERSION@/visitas-@VERSION@-x86_64-unknown-linux-musl.tar.gz"
    sha256 "@SHA256_x86_64@"
  end
  on_arm do
    url "@SOURCE@/releases/download/v@VERSION@/visitas-@VERSION@-aarch64-unknown-linux-musl.tar.gz"
    sha256 "@SHA256_aarch64@"
  end

  def install
    bin.install "visitas"
    doc.install "README.md", "CHANGELOG.md"
  end

  service do
    run opt_bin/"visitas"
    keep_alive true
    environment_variables DATA_DIR: var/"visitas"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/visitas --version")
    output = shell_output("DB_PASSWORD=x #{bin}/visitas 2>&1", 2)
    assert_match "DB_PASSWORD", output
  end
end
