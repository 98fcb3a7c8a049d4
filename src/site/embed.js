// How another page uses this counter: snippets with its address.
{
  if (here !== undefined) {
    const at = location.origin + here, { title } = document, text = words.embed;
    const image = path => `![${title}](${path})`;
    const snippets = [
      [text.image, `<img src="${at}/visit.svg" alt="${title}">`],
      [text.markdown, image(at + '/visit.svg')],
      [text.beacon, `<script>navigator.sendBeacon("${at}/visit")</script>`],
      [text.json, `<b id="visits"></b>
<script>
\x20 fetch("${here ? at : at + '/'}", { headers: { Accept: "application/json" } })
\x20   .then(answer => answer.json())
\x20   .then(({ total }) => {
\x20     document.getElementById("visits").textContent = total;
\x20   });
</script>`],
      [text.badge, image(at + '/badge.svg')],
      [text.shields, image('https://img.shields.io/endpoint?url=' +
        encodeURIComponent(at + '/badge.json'))],
    ];
    const copy = code => {
      const button = make('button', { type: 'button', textContent: words.copy });
      button.onclick = async () => {
        await navigator.clipboard.writeText(code);
        say(button, words.copied);
        setTimeout(() => say(button, words.copy), 2000);
      };
      return button;
    };
    const list = make('dl', {}, ...snippets.map(([name, code]) =>
      make('div', {}, make('dt', { textContent: name }),
        make('dd', {}, make('code', { textContent: code }),
          ...(navigator.clipboard ? [copy(code)] : [])))));
    document.querySelector('footer').before(
      make('details', { id: 'embed' }, make('summary', { textContent: words.use }), list));
  }
}
