// Asks for this page again as long as the server says that it changes, and puts the new main part in the old one's place.
// Nothing is built from strings: the browser parses the answer into a document, in which no script runs.
(() => {
  'use strict';
  const notice = document.getElementById('notice');
  let failures = 0;

  const main = () => document.querySelector('main');

  const selecting = () => {
    const selection = getSelection();
    return !selection.isCollapsed && main().contains(selection.anchorNode);
  };

  const show = (request) => {
    const page = request.status === 200 || request.status === 404 ? request.response : null;
    const fresh = page && page.querySelector('main');
    failures = fresh ? 0 : failures + 1;
    notice.hidden = Boolean(fresh);
    if (!fresh) return;
    const focused = main().contains(document.activeElement) && document.activeElement.getAttribute('href');
    main().replaceWith(fresh);
    document.title = page.title;
    const link = [...main().querySelectorAll('a')].find((a) => a.getAttribute('href') === focused);
    if (link) link.focus({preventScroll: true});
  };

  const ask = () => {
    if (document.hidden || selecting()) {
      again();
      return;
    }
    const request = new XMLHttpRequest();
    request.open('GET', location.href);
    request.responseType = 'document';
    request.timeout = 15000;
    request.onloadend = () => {
      show(request);
      again();
    };
    request.send();
  };

  const again = () => {
    const seconds = Number(main().dataset.refresh);
    if (seconds > 0) setTimeout(ask, 1000 * Math.min(30, seconds * 2 ** failures));
  };

  again();
})();
